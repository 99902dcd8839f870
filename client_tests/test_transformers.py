"""A language model of transformers whose ``loss_function`` is xent's, beside the same model with its own."""

import contextlib

import pytest
import torch
from training import EPSILON, are_one_curve, train
from transformers import GPT2Config, GPT2LMHeadModel

import xent

WORDS, LENGTH, STEPS = 32000, 64, 30

# TorchDynamo's own, at every autograd.Function that it traces.
pytestmark = pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")


def causal_lm_loss(logits, labels, vocab_size, num_items_in_batch=None, ignore_index=-100, shift_labels=None, **_):
    """The loss as transformers asks for it: each position predicts the next word."""
    if shift_labels is None:
        shift_labels = torch.nn.functional.pad(labels, (0, 1), value=ignore_index)[..., 1:]
    reduction = "mean" if num_items_in_batch is None else xent.Mean(float(num_items_in_batch))
    return xent.sparse_cross_entropy(logits, shift_labels, ignore_index=ignore_index, reduction=reduction)


def slightly_smoothed(logits, labels, vocab_size, **_):
    """Another loss, by a thousandth of its targets."""
    shift_labels = torch.nn.functional.pad(labels, (0, 1), value=-100)[..., 1:]
    return xent.sparse_cross_entropy(logits, shift_labels, ignore_index=-100, label_smoothing=1e-3, reduction="mean")


def gpt(loss=None, words=WORDS, dtype=torch.float32):
    """A small model with random weights, always the same ones."""
    torch.manual_seed(0)
    size = {"n_positions": LENGTH, "n_embd": 64, "n_layer": 2, "n_head": 2}
    no_dropout = {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}
    tokens = {"bos_token_id": None, "eos_token_id": None}
    model = GPT2LMHeadModel(GPT2Config(vocab_size=words, **size, **no_dropout, **tokens)).to(dtype)
    if loss is not None:
        model.loss_function = loss
    return model


def texts(words=WORDS, steps=STEPS, padded=False):
    """Batches of words, the frequent ones more often; the labels of padding are −100, which is ignored."""
    generator = torch.Generator().manual_seed(1)
    for _ in range(steps):
        ids = torch.randint(0, 50, (8, LENGTH), generator=generator) ** 2 % words
        labels = ids.clone()
        if padded:
            labels[:, LENGTH // 2 :][::2] = -100
        yield ids, labels


def trained(loss, batches, **options):
    """The run of a model with a loss."""
    model = gpt(loss, **options)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)

    def step(batch):
        loss = model(input_ids=batch[0], labels=batch[1]).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss.detach()

    return train(step, batches)


@pytest.mark.parametrize("kernel", ["numba", "numpy"])
def test_a_gpt_learns_as_with_its_own_loss(kernel, measured):
    theirs = trained(None, texts())
    with xent.using(kernel=kernel):
        ours = trained(causal_lm_loss, texts())
    measured(f"GPT of transformers, {8 * LENGTH} words of {WORDS}, {kernel}", ours.seconds, theirs.seconds)

    assert are_one_curve(ours.losses, theirs.losses)


def test_another_loss_is_another_curve():
    theirs = trained(None, texts(words=500, steps=3), words=500)
    ours = trained(slightly_smoothed, texts(words=500, steps=3), words=500)

    assert not are_one_curve(ours.losses, theirs.losses)


def test_padding_is_ignored_and_the_divisor_may_be_the_trainers():
    model = {loss: gpt(loss, words=500) for loss in (None, causal_lm_loss)}
    ((ids, labels),) = texts(words=500, steps=1, padded=True)
    counts = [{}, {"num_items_in_batch": 1000}, {"num_items_in_batch": torch.tensor(1000)}]
    for keywords in counts:
        theirs, ours = (m(input_ids=ids, labels=labels, **keywords).loss for m in model.values())
        theirs.backward()
        ours.backward()

        assert ours.item() == pytest.approx(theirs.item(), rel=4 * EPSILON)

    for ours, theirs in zip(*(m.parameters() for m in reversed(model.values())), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad)


def test_a_gpt_in_bfloat16_learns_as_with_its_own_loss_which_widens_the_logits_first():
    theirs = trained(None, texts(steps=10), dtype=torch.bfloat16)
    ours = trained(causal_lm_loss, texts(steps=10), dtype=torch.bfloat16)

    assert are_one_curve(ours.losses, theirs.losses, epsilon=2**-8)


@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
def test_a_compiled_gpt_learns_as_an_uncompiled_one(backend):
    batches = list(texts(words=500, steps=4))
    plain = trained(causal_lm_loss, batches, words=500)

    def step(model, ids, labels):
        return model(input_ids=ids, labels=labels).loss

    compiled = torch.compile(step, backend=backend)
    model = gpt(causal_lm_loss, words=500)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    losses = []
    for batch in batches:
        loss = compiled(model, *batch)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())

    assert are_one_curve(losses, plain.losses)


@pytest.mark.parametrize("bad", [500, -1])
def test_a_word_that_is_none_is_named(bad):
    model = gpt(causal_lm_loss, words=500)
    ((ids, labels),) = texts(words=500, steps=1)
    labels[2, 7] = bad
    with pytest.raises(xent.LabelError, match=rf"{bad}"):
        model(input_ids=ids, labels=labels)
    with contextlib.suppress(IndexError):  # torch's own loss has no more to say
        gpt(words=500)(input_ids=ids, labels=labels)
        raise AssertionError("torch takes the label")


def test_labels_of_another_length_are_refused():
    ((ids, labels),) = texts(words=500, steps=1)
    with pytest.raises(ValueError, match=r"sparse_cross_entropy: .* \(8, 64\)"):
        gpt(causal_lm_loss, words=500)(input_ids=ids, labels=labels[:, :-1])
