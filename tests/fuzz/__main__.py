"""``python -m fuzz --seconds 3600``: the farm, on as many processes as there are processors."""

import argparse
import concurrent.futures
import multiprocessing
import os
import sys

from .farm import CASES, Tally, say, work


def main() -> int:
    parser = argparse.ArgumentParser(prog="fuzz", description=__doc__)
    parser.add_argument("--seconds", type=float, default=float(os.environ.get("FUZZ_SECONDS", "60")))
    parser.add_argument(
        "--seed", type=int, default=int(os.environ.get("FUZZ_SEED") or int.from_bytes(os.urandom(4), "little"))
    )
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--keep", default=str(CASES), help="the folder for failing calls")
    told = parser.parse_args()
    say(f"fuzz: FUZZ_SEED={told.seed} FUZZ_SECONDS={told.seconds:g}, {told.workers} processes")
    tally = Tally()
    with concurrent.futures.ProcessPoolExecutor(told.workers, multiprocessing.get_context("spawn")) as pool:
        ran = [pool.submit(work, told.seed, one, told.workers, told.seconds, told.keep) for one in range(told.workers)]
        for one in ran:
            tally.add(one.result())
    rate = tally.cases / told.seconds * 3600
    for (function, door, what), number in tally.faults.most_common():
        say(f"{number:6d} {function} at {door}: {what}")
    say(
        f"{tally.cases} cases of {tally.calls} calls ({rate:.0f} an hour), {sum(tally.faults.values())} faults, "
        f"{len(tally.kept)} kept in {told.keep}"
    )
    return 1 if tally.faults else 0


if __name__ == "__main__":
    sys.exit(main())
