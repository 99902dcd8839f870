"""Faults while xent runs, made for real, as often as is asked for: ``python tests/faults.py KIND --count 1000``.

Prints the seed and how every try ended, and exits with 1 if one ended as none may. After ``--seconds`` no new try is
begun. The tests make a few tries of each kind.
"""

import argparse
import os
import random
import signal
import sys
import time
from collections import Counter

import numpy as np

import xent

LIMIT = 30.0
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


KINDS = {
    "calls": interrupted_calls,
    "many-interrupts": lambda rng: interrupted_calls(rng, 100),
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
    print(f"{asked.kind}, seed {asked.seed}: {dict(ends)}")
    sys.exit(set(ends) != {"as it should"})


if __name__ == "__main__":
    main()
