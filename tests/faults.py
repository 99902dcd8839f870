"""Faults while xent runs, made for real, as often as is asked for: ``python tests/faults.py KIND --count 1000``.

Prints the seed and how every try ended, and exits with 1 if one ended as none may. After ``--seconds`` no new try is
begun. The tests make a few tries of each kind.
"""

import argparse
import faulthandler
import json
import os
import random
import resource
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path

import numpy as np

import xent
from xent.cli import main as xent_command
from xent.evaluation.evaluations import evaluate

stopped = Counter()
"""How often a process was stopped by a signal, by how it then ended."""
LIMIT = 120.0
"""Seconds after which a process that has not ended counts as hung."""


def outcome(pid):
    """How a child ended: "as it should" for exit status 0, else its status, or "hung"."""
    deadline = time.monotonic() + LIMIT
    while time.monotonic() < deadline:
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            code = os.waitstatus_to_exitcode(status)
            return "as it should" if code == 0 else f"exit status {code}"
        time.sleep(0.002)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    return "hung"


def interrupted_calls(rng, interrupts=1):
    """A process whose calls are interrupted at random moments makes another call, whose bits are right, and ends."""
    rows, classes = rng.choice([(50, 64), (200, 1000), (400, 1000), (4000, 1000)])
    x = np.random.default_rng(rng.randrange(2**32)).standard_normal((rows, classes)).astype(np.float32)
    y = np.arange(rows) % classes
    with xent.using(threads=1):  # it starts no thread, which a fork would lose
        expected = xent.sparse_cross_entropy(x, y).tobytes()
        start = time.perf_counter()
        xent.value_and_grad(xent.sparse_cross_entropy)(x, y)
    longest = 3 * (time.perf_counter() - start)
    moments = [rng.random() * longest + 1e-4 for _ in range(interrupts)]
    pid = os.fork()
    if pid:
        return outcome(pid)
    faulthandler.dump_traceback_later(LIMIT - 5)
    signal.signal(signal.SIGALRM, signal.default_int_handler)
    with xent.using(threads=3):
        for moment in moments:
            try:
                signal.setitimer(signal.ITIMER_REAL, moment)
                while True:
                    xent.sparse_cross_entropy(x, y)
                    xent.value_and_grad(xent.sparse_cross_entropy)(x, y)
            except KeyboardInterrupt:
                pass
        sys.exit(xent.sparse_cross_entropy(x, y).tobytes() != expected)


# ---------------------------------------------------------------------------------------------------------------------
# Evaluations, each a process of its own that has imported all beforehand

ROWS, CLASSES = 400, 7
COMMAND = ("evaluate", "x.npy", "y.npy", "-q", "--json", "--chunk-bytes", "280")
KEPT = ("--state", "kept", "--per-example", "loss.npy", "--overwrite")


class Set:
    """A folder with a prediction set, and what is right of it."""

    def __init__(self, rng):
        self.folder = Path(tempfile.mkdtemp(prefix="xent-faults-"))
        numbers = np.random.default_rng(rng.randrange(2**32))
        self.logits, self.labels = numbers.standard_normal((ROWS, CLASSES)).astype("f4"), numbers.integers(0, 7, ROWS)
        np.save(self.folder / "x.npy", self.logits)
        np.save(self.folder / "y.npy", self.labels)
        self.losses = xent.row_statistics(self.logits, self.labels).loss
        self.mean = evaluate(self.logits, self.labels, scheduler="sync").mean_loss
        self.seconds = 0.0
        start = time.monotonic()
        assert self.end_of(self.start(*COMMAND)) == 0 and self.is_right(), self.said()
        self.seconds = time.monotonic() - start

    def start(self, *command, limit=None, name="run"):
        """The process of a command, whose stdout and stderr are files of that name."""
        signals = {signal.SIGINT, signal.SIGTERM}
        signal.pthread_sigmask(signal.SIG_BLOCK, signals)  # until the command begins
        pid = os.fork()
        if pid:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, signals)
            return pid
        code = 99
        try:
            os.chdir(self.folder)
            for number, suffix in ((1, "out"), (2, "err")):
                os.dup2(os.open(f"{name}.{suffix}", os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
            sys.stdout, sys.stderr = os.fdopen(1, "w"), os.fdopen(2, "w")
            if limit is not None:  # as a disk that is full: to let a file grow over it is an error of the system
                resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
            signal.signal(signal.SIGINT, signal.default_int_handler)
            arguments = [*command]
            signal.pthread_sigmask(signal.SIG_UNBLOCK, signals)
            xent_command(arguments, prog_name="xent")
        except KeyboardInterrupt:  # before the command has begun
            os.write(2, b"xent: interrupted\n")
            code = 130
        except SystemExit as end:
            threading._shutdown()  # as the interpreter does at its end: it waits for threads
            sys.stdout.flush()
            code = end.code
        finally:
            os._exit(code)

    def end_of(self, pid):
        """The exit code of a process, negative for a signal; "hung" if it does not end."""
        deadline = time.monotonic() + LIMIT
        while time.monotonic() < deadline:
            ended, status = os.waitpid(pid, os.WNOHANG)
            if ended:
                return os.waitstatus_to_exitcode(status)
            time.sleep(0.002)
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        return "hung"

    def said(self, name="run"):
        file = self.folder / f"{name}.err"
        return file.read_text("utf-8") if file.exists() else ""

    def is_right(self, name="run"):
        """Whether the document has the right mean, and the losses, if they are there, are right."""
        document = json.loads((self.folder / f"{name}.out").read_text("utf-8"))
        return document["metrics"]["loss"]["value"] == self.mean and self.has_right_losses()

    def has_right_losses(self):
        path = self.folder / "loss.npy"
        return not path.exists() or np.load(path).tobytes() == self.losses.tobytes()

    def judged(self, code, *, allowed, name="run"):
        """How a run ended: as it should where it is right, or in one line with a code that is allowed."""
        said = self.said(name)
        if code == 0:
            return "as it should" if self.is_right(name) and not said else f"wrong numbers, or a word: {said}"
        is_one_line = len(said.splitlines()) == 1 and said.startswith("xent: ")
        if code in allowed and (is_one_line or code < 0):
            return "as it should"
        return f"{code}: {said}"

    def remove(self):
        shutil.rmtree(self.folder, ignore_errors=True)


def stopped_evaluations(rng, number, allowed):
    """A run that is stopped at a random moment, again and again, until one comes to its end with the right numbers."""
    kept = Set(rng)
    try:
        for _ in range(100):
            pid = kept.start(*COMMAND, *KEPT)
            time.sleep(rng.random() * kept.seconds)
            os.kill(pid, number)
            code = kept.end_of(pid)
            stopped[code] += 1
            how = kept.judged(code, allowed=allowed)
            if code == 0 or how != "as it should":
                return how
        return kept.judged(kept.end_of(kept.start(*COMMAND, *KEPT)), allowed=())
    finally:
        kept.remove()


def full_disks(rng):
    """No file can grow over some size: what is there is whole, and the next run goes on and is right."""
    kept = Set(rng)
    try:
        outputs = ("--html", "page.html", "--tables", "tables", *KEPT)
        limit = int(10 ** rng.uniform(3, 5.5))  # what is said on stderr must fit
        code = kept.end_of(kept.start(*COMMAND, *outputs, limit=limit))
        document = kept.folder / "run.out"
        is_cut = code == 2 and document.stat().st_size == limit  # the document itself did not fit
        how = "as it should" if is_cut else kept.judged(code, allowed=(2,))
        drafts = [path.name for path in kept.folder.rglob(".*")]
        if how != "as it should" or drafts or not kept.has_right_losses():
            return f"{limit}: {how}, {drafts}"
        return kept.judged(kept.end_of(kept.start(*COMMAND, *outputs)), allowed=())
    finally:
        kept.remove()


def two_runs(rng):
    """Two runs at once on one state and one output: each is right, or ends in one line."""
    kept = Set(rng)
    try:
        options = KEPT if rng.random() < 0.5 else ("--per-example", "loss.npy")
        pids = {}
        for name in ("first", "second"):
            pids[name] = kept.start(*COMMAND, *options, name=name)
            time.sleep(rng.random() * kept.seconds)
        hows = {kept.judged(kept.end_of(pid), allowed=(2,), name=name) for name, pid in pids.items()}
        return "as it should" if hows == {"as it should"} and kept.has_right_losses() else str(hows)
    finally:
        kept.remove()


def changed_inputs(rng):
    """An input that is replaced at a random moment: the numbers are those of what was there, or there is one line."""
    kept = Set(rng)
    try:
        name, other = rng.choice(
            [("x.npy", kept.logits[::-1]), ("y.npy", kept.labels[::-1]), ("x.npy", kept.logits[1:])]
        )
        np.save(kept.folder / "other.npy", other)
        pid = kept.start(*COMMAND)
        time.sleep(rng.random() * kept.seconds)
        (kept.folder / "other.npy").replace(kept.folder / name)
        code = kept.end_of(pid)
        new = [np.load(kept.folder / file) for file in ("x.npy", "y.npy")]
        if code == 0 and not kept.is_right():  # it was replaced before the run began
            kept.mean = evaluate(*new, scheduler="sync").mean_loss
        return kept.judged(code, allowed=(2, 3))
    finally:
        kept.remove()


KINDS = {
    "calls": interrupted_calls,
    "many-interrupts": lambda rng: interrupted_calls(rng, 100),
    "interrupts": lambda rng: stopped_evaluations(rng, signal.SIGINT, (130,)),
    "terminations": lambda rng: stopped_evaluations(rng, signal.SIGTERM, (143, -signal.SIGTERM)),
    "kills": lambda rng: stopped_evaluations(rng, signal.SIGKILL, (-signal.SIGKILL,)),
    "full-disks": full_disks,
    "two-runs": two_runs,
    "changed-inputs": changed_inputs,
}


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("kind", choices=KINDS)
    parser.add_argument("--count", type=int, default=100)
    parser.add_argument("--seconds", type=float, default=float("inf"))
    parser.add_argument("--seed", type=int, default=random.randrange(2**32))
    asked = parser.parse_args()
    rng, deadline, ends = random.Random(asked.seed), time.monotonic() + asked.seconds, Counter()
    while ends.total() < asked.count and time.monotonic() < deadline:
        ends[KINDS[asked.kind](rng)] += 1
    signals = f"; exit codes after a signal: {dict(stopped)}" if stopped else ""
    print(f"{asked.kind}, seed {asked.seed}: {dict(ends)}{signals}")
    sys.exit(set(ends) != {"as it should"})


if __name__ == "__main__":
    main()
