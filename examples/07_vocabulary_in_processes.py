"""The vocabulary lies in several processes: each folds its slice, and four numbers a token go over the wire."""

import multiprocessing

import numpy as np

import xent

TOKENS, WIDTH, VOCABULARY, PROCESSES = 300, 32, 5000, 3
EDGES = [VOCABULARY * rank // PROCESSES for rank in range(PROCESSES + 1)]


def operands():
    """Hidden states, a classifier and labels; a process would load its slice of the classifier."""
    rng = np.random.default_rng(0)
    hidden, classifier = (rng.standard_normal((rows, WIDTH), dtype=np.float32) for rows in (TOKENS, VOCABULARY))
    return hidden, classifier, rng.integers(0, VOCABULARY, TOKENS)


def slice_of(rank):
    """The product of one slice of the vocabulary, and where that lies."""
    hidden, classifier, labels = operands()
    logits = xent.Linear(hidden, classifier[EDGES[rank] : EDGES[rank + 1]])
    return logits, {"labels": labels, "first_class": EDGES[rank], "num_classes": VOCABULARY}


def gradient_of(rank, whole):
    """The gradient of the mean loss in one slice, from the partial of all."""
    logits, place = slice_of(rank)
    return xent.gradient(logits, whole, **place, scale=np.full(TOKENS, 1 / TOKENS, np.float32))


def work(rank, pipe):
    """One process: its partial to the others, the merged one back, and then its gradient."""
    logits, place = slice_of(rank)
    pipe.send(xent.partial(logits, **place))  # an all-gather in a program of its own
    whole = xent.merge(*pipe.recv())
    pipe.send((xent.finish(whole), gradient_of(rank, whole)))


if __name__ == "__main__":
    context = multiprocessing.get_context("spawn")
    pipes = [context.Pipe() for _ in range(PROCESSES)]
    workers = [context.Process(target=work, args=(rank, pipe)) for rank, (_, pipe) in enumerate(pipes)]
    for worker in workers:
        worker.start()
    parts = [ours.recv() for ours, _ in pipes]
    for ours, _ in pipes:
        ours.send(parts)
    answers = [ours.recv() for ours, _ in pipes]
    wire = sum(field.nbytes for field in parts[0]) / TOKENS
    print(f"Each of {PROCESSES} processes sends {wire:.0f} bytes a token; its logits take {4 * EDGES[1]}.")

    whole = xent.merge(*(xent.partial(logits, **place) for logits, place in map(slice_of, range(PROCESSES))))
    for rank, (loss, gradient) in enumerate(answers):  # the bits of one process that does all of it
        alone = gradient_of(rank, whole)
        assert np.array_equal(loss, xent.finish(whole))
        assert np.array_equal(gradient.hidden, alone.hidden) and np.array_equal(gradient.classifier, alone.classifier)
