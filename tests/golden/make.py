"""Write the golden cases; with ``--check``, make them again and compare.

For each row, by mpmath, as the textbook writes it, with so many digits that fifty are left where it cancels:

    lse = log sum exp x        loss = sum t (lse - x)        gradient = (sum t) exp(x - lse) - t

where t is the row's target after smoothing, exactly as its dtype holds it. ``cases.json`` has one case a line: the
recipe of the arrays, their checksum, then loss, lse and gradient as decimal strings of 40 digits. Of long rows only
some of the gradient's columns are kept. Equal pairs (x, t) of a row are taken once, so a quarter of a million classes
cost seconds, not minutes.
"""

import argparse
import json
import math
import sys
from pathlib import Path
from typing import Any

import mpmath
import numpy as np
from mpmath import mp

sys.path.insert(0, str(Path(__file__).parents[1]))
from golden_cases import checksum, make_inputs, path

half, bfloat, single, double = "float16", "bfloat16", "float32", "float64"
guard_digits = 60


# -------------------- exact values


def digits_of(x: np.ndarray) -> tuple[int, int]:
    """The digits between a row's largest exponential and its smallest, at most 340, and those of its largest logit."""
    finite = x[np.isfinite(x)].astype(np.float64)
    gap = min((finite.max() - finite.min()) / math.log(10), 340.0)
    return math.ceil(gap), math.ceil(math.log10(1 + np.abs(finite).max()))


def written(value: Any, gap_digits: int) -> str:
    """Forty digits; "0" for what the working precision leaves of an exact 0, and for what lies under every double."""
    if mpmath.isinf(value):
        return "inf" if value > 0 else "-inf"
    return "0" if abs(value) < mp.mpf(10) ** (15 - guard_digits - gap_digits) else mpmath.nstr(value, 40)


def exact_row(x: np.ndarray, t: np.ndarray, label_smoothing: float, columns: np.ndarray) -> tuple[Any, Any, list[Any]]:
    """Loss, lse and the gradient at ``columns`` of one row, t before smoothing."""
    classes = len(x)
    pairs, counts = np.unique(np.stack([x.astype(np.float64), t.astype(np.float64)]), axis=1, return_counts=True)
    gap_digits, offset_digits = digits_of(x)
    with mp.workdps(guard_digits + gap_digits + offset_digits):
        a = mp.mpf(label_smoothing)

        def smoothed(value: float) -> Any:
            return (1 - a) * mp.mpf(value) + a / classes

        terms = [(mp.mpf(xj), smoothed(tj), int(n)) for xj, tj, n in zip(*pairs, counts, strict=True)]
        lse = mp.log(mp.fsum(n * mp.exp(xj) for xj, _, n in terms))
        loss = mp.fsum(n * tj * (lse - xj) for xj, tj, n in terms if tj)
        total = mp.fsum(n * tj for _, tj, n in terms)
        gradient = [total * mp.exp(mp.mpf(float(x[j])) - lse) - smoothed(float(t[j])) for j in columns]
        return written(loss, gap_digits), written(lse, gap_digits), [written(g, gap_digits) for g in gradient]


def kept_columns(x: np.ndarray, label: int) -> np.ndarray:
    """All columns of a short row; of a long one the label's (or first), the maximum's, and five spread over the row."""
    classes = len(x)
    if classes <= 12:
        return np.arange(classes)
    return np.asarray([label, np.argmax(x), *((2 * i + 1) * classes // 10 for i in range(5))])


def completed(entry: dict[str, Any]) -> dict[str, Any]:
    """The entry with its checksum and its exact values."""
    logits, labels, targets = make_inputs(entry)
    rows, classes = logits.shape
    some_label = labels if labels is not None else np.argmax(targets, axis=-1)
    columns = [kept_columns(logits[row], int(some_label[row])) for row in range(rows)]
    if entry["name"].startswith("equal-terms"):
        columns = [np.asarray([0, classes - 1])] * rows
    exact = [
        exact_row(
            logits[row],
            targets[row] if targets is not None else (np.arange(classes) == labels[row]),
            entry.get("label_smoothing", 0.0),
            columns[row],
        )
        for row in range(rows)
    ]
    loss, lse, gradient = (list(values) for values in zip(*exact, strict=True))
    return entry | {
        "rows": rows,
        "classes": classes,
        "checksum": checksum(logits, labels, targets),
        "loss": loss,
        "lse": lse,
        "columns": [row.tolist() for row in columns],
        "gradient": gradient,
    }


# -------------------- the cases


def entry(
    name: str, dtype: str, logits: Any, labels: Any = None, *, targets: Any = None, label_smoothing: float = 0.0
) -> dict[str, Any]:
    """One line of the file, before its values. ``logits`` is a recipe, or rows of numbers."""
    if isinstance(logits, list):
        logits = {"values": [[repr(float(value)) for value in row] for row in logits]}
    if isinstance(targets, list):
        targets = {"values": [[repr(float(value)) for value in row] for row in targets]}
    made = {"name": f"{name}-{dtype}", "dtype": dtype, "logits": logits}
    made |= {"targets": targets} if labels is None else {"labels": labels}
    return made | ({"label_smoothing": label_smoothing} if label_smoothing else {})


def bell(seed: int, rows: int, classes: int, spread: float = 3.0, offset: float = 0.0, **more: Any) -> dict[str, Any]:
    return {"seed": seed, "rows": rows, "classes": classes, "spread": spread, "offset": offset, **more}


def flat(rows: int, classes: int, value: float = 0.0, **more: Any) -> dict[str, Any]:
    return bell(0, rows, classes, 0.0, value, **more)


def spread_labels(rows: int, classes: int) -> list[int]:
    """The first class, the last, and some between."""
    return [0, classes - 1, *((7919 * row) % classes for row in range(2, rows))][:rows]


# Class 5 is surer from row to row.
confident = bell(31, 7, 123, 1.0, places=[[row, 5, 12.0 + 3 * row] for row in range(7)])


def plain_cases() -> list[dict[str, Any]]:
    """Nothing special: every width, every dtype."""
    widths = {
        half: [7, 123, 1000, 262144],
        bfloat: [7, 123, 1000, 262144],
        single: [1, 2, 3, 7, 10, 123, 507, 1000, 4097, 32003],
        double: [1, 2, 7, 123, 1000, 32003],
    }
    made = []
    for dtype, all_classes in widths.items():
        for classes in all_classes:
            rows = 7 if classes <= 123 else 3 if classes <= 4097 else 1
            made.append(entry(f"plain-{classes}", dtype, bell(classes, rows, classes), spread_labels(rows, classes)))
    made.append(entry("plain-262144", single, bell(262144, 1, 262144), [131071]))
    made.append(entry("plain-262144", double, bell(262145, 1, 262144), [131071]))
    for dtype in (single, double):
        made.append(entry("wide-507", dtype, bell(11, 3, 507, 30.0), spread_labels(3, 507)))
        made.append(entry("very-wide-123", dtype, bell(12, 7, 123, 3000.0), spread_labels(7, 123)))
    return made


def offset_cases() -> list[dict[str, Any]]:
    """A common offset, which changes nothing but the rounding of the input."""
    offsets = {half: [1000.0, -30000.0], bfloat: [1e6], single: [1e3, 1e6, -1e6], double: [1e6, -1e6]}
    return [
        entry(f"offset{offset:+.0e}", dtype, bell(21, 7, 123, 3.0, offset), spread_labels(7, 123))
        for dtype, some in offsets.items()
        for offset in some
    ]


def gap_cases() -> list[dict[str, Any]]:
    """Gaps between the logits to 1e4, with the label on either side of them."""
    gaps = [1.0, 16.5, 64.0, 100.25, 1000.0, 10000.0]
    made = []
    for dtype in (half, bfloat, single, double):
        made.append(entry("gap-below", dtype, [[0.0, -gap, -1.5 * gap] for gap in gaps], [1] * 6))
        made.append(entry("gap-above", dtype, [[-gap, 0.0, 0.25] for gap in gaps], [0] * 6))
    # One rounding of m - x costs more here than any function after it.
    made.append(entry("one-rounding", single, [[0.9071388840675354, -63.71227264404297]] * 2, [0, 1]))
    made.append(entry("one-rounding", double, [[0.9071388840675354, -63.71227264404297]] * 2, [0, 1]))
    return made


def tiny_cases() -> list[dict[str, Any]]:
    """Losses down to 1e-30, to the smallest normal number and under it."""
    made = []
    for dtype in (half, bfloat, single, double):
        made.append(entry("tiny", dtype, [[0.0, -gap] for gap in (20.0, 33.0, 45.0, 58.0, 69.0, 86.0)], [0] * 6))
        made.append(
            entry(
                "tiny-of-three",
                dtype,
                [[-gap, 3.0, -gap - 1.0] for gap in (17.0, 30.0, 42.0, 55.0, 66.0, 80.0)],
                [1] * 6,
            )
        )
    made.append(
        entry(
            "tiny-double",
            double,
            [[0.0, -gap] for gap in (100.0, 300.0, 700.0, 708.0, 709.5, 720.0, 744.0, 746.0)],
            [0] * 8,
        )
    )
    made.append(entry("gap-80-to-110", single, [[0.0, -gap] for gap in range(80, 111, 3)], [0] * 11))
    made.append(entry("gap-80-to-110-label-below", single, [[0.0, -gap, -95.5] for gap in range(80, 111, 3)], [1] * 11))
    made.append(
        entry(
            "many-tiny",
            single,
            {**flat(5, 262144, 0.0), "places": [[row, 7, gap] for row, gap in enumerate((20, 69, 90, 98, 104))]},
            [7] * 5,
        )
    )
    made.append(entry("many-tiny", double, {**flat(2, 262144, 0.0), "places": [[0, 7, 69.0], [1, 7, 715.0]]}, [7] * 2))
    made.append(entry("confident", single, confident, [5] * 7))
    made.append(entry("confident", bfloat, confident, [5] * 7))
    return made


def edge_cases() -> list[dict[str, Any]]:
    """Ties, masked classes, one class, binade edges."""
    infinite = math.inf
    made = []
    for dtype in (half, bfloat, single, double):
        made.append(
            entry("ties", dtype, [[1.0, 1.0, 0.0], [1.0, 1.0, 1.0], [-2.0, 3.0, 3.0], [0.0, -7.0, -7.0]], [0, 1, 0, 2])
        )
        made.append(
            entry(
                "masked",
                dtype,
                [
                    [-infinite, 0.0, 1.5],
                    [2.0, -infinite, -infinite],
                    [-infinite, -infinite, -40.0],
                    [0.5, -infinite, -20.0],
                ],
                [1, 0, 2, 0],
            )
        )
        made.append(entry("masked-label", dtype, [[-infinite, 0.0, 1.5], [2.0, -infinite, 2.0]], [0, 1]))
        made.append(entry("one-class", dtype, [[0.0], [-5.0], [300.0]], [0, 0, 0]))
    made.append(entry("masked-507", single, bell(41, 3, 507, masked_every=3), [0, 3, 506]))
    made.append(entry("masked-507", double, bell(41, 3, 507, masked_every=3), [0, 3, 506]))
    for dtype, eps in ((half, 2.0**-10), (bfloat, 2.0**-7), (single, 2.0**-23), (double, 2.0**-52)):
        # Logits on both sides of a power of two, so that the subtraction and its result change binade.
        around = [
            [power * (1 - eps / 2), power, power * (1 + eps), 0.0, -power] for power in (0.125, 1.0, 2.0, 8.0, 64.0)
        ]
        made.append(entry("logits-at-binade-edges", dtype, around, [0, 1, 2, 0, 2]))
    # log(e - 1) under the label gives a loss of 1, log(e**2 - 1) of 2, and so on: the loss crosses its binades.
    for dtype in (single, double):
        crossing = [
            [0.0, float(mp.log(mp.expm1(loss))) + nudge]
            for loss in (0.25, 0.5, 1.0, 2.0, 4.0, 8.0)
            for nudge in (-1e-6, 0.0, 1e-6)
        ]
        made.append(entry("losses-at-binade-edges", dtype, crossing, [0] * 18))
    return made


def dense_cases() -> list[dict[str, Any]]:
    """Targets written out: one-hot, soft, not summing to 1, on masked classes."""
    made = []
    for dtype in (half, bfloat, single, double):
        hot = {"labels": spread_labels(7, 123), "on": 1.0, "off": 0.0}
        made.append(entry("dense-one-hot-123", dtype, bell(123, 7, 123), targets=hot))
        made.append(entry("dense-soft-123", dtype, bell(51, 7, 123), targets={"seed": 52, "sum": 1.0, "zero_every": 5}))
    for dtype in (single, double):
        made.append(
            entry("dense-one-hot-confident", dtype, confident, targets={"labels": [5] * 7, "on": 1.0, "off": 0.0})
        )
        for total in (0.3, 2.5, 1000.0):
            made.append(
                entry(
                    f"dense-sum-{total}", dtype, bell(53, 3, 507), targets={"seed": 54, "sum": total, "zero_every": 7}
                )
            )
        made.append(entry("dense-offset", dtype, bell(55, 3, 123, 3.0, 1e6), targets={"seed": 56, "sum": 1.0}))
        made.append(
            entry("dense-wide", dtype, bell(57, 3, 507, 30.0), targets={"seed": 58, "sum": 1.0, "zero_every": 4})
        )
        made.append(entry("dense-no-target", dtype, bell(59, 2, 7), targets=[[0.0] * 7, [0.0] * 6 + [0.5]]))
        masked = bell(41, 3, 507, masked_every=3)
        made.append(entry("dense-masked", dtype, masked, targets={"labels": [0, 3, 506], "on": 0.75, "off": 0.0}))
        # The gradient is all but 0 where the targets are the softmax itself.
        made.append(
            entry(
                "dense-at-the-optimum",
                dtype,
                [[0.0, float(mp.log(3))], [1.0, 1.0], [0.0, -60.0]],
                targets=[[0.25, 0.75], [0.5, 0.5], [1.0, float(mp.exp(-60))]],
            )
        )
        two_valued = {"labels": [999], "on": 0.9 + 0.1 / 1000, "off": 0.1 / 1000}
        made.append(entry("dense-uniform-1000", dtype, flat(1, 1000, 0.5), targets=two_valued))
    for classes in (32003, 262144):
        two_valued = {"labels": [classes - 1], "on": 0.9 + 0.1 / classes, "off": 0.1 / classes}
        made.append(entry(f"dense-uniform-{classes}", single, flat(1, classes, 0.0), targets=two_valued))
        made.append(
            entry(
                f"dense-all-but-one-equal-{classes}",
                single,
                flat(1, classes, 0.0, places=[[0, 7, 0.5]]),
                targets=two_valued,
            )
        )
    made.append(entry("dense-soft-32003", single, bell(61, 1, 32003), targets={"seed": 62, "sum": 1.0}))
    return made


def smoothed_cases() -> list[dict[str, Any]]:
    """Labels with label smoothing, uniform rows among them, where every rounding is the same one."""
    made = []
    for a in (0.1, 1.0):
        for dtype in (half, bfloat, single, double):
            made.append(entry(f"smoothed-{a}-123", dtype, bell(71, 7, 123), spread_labels(7, 123), label_smoothing=a))
        for dtype in (single, double):
            made.append(entry(f"smoothed-{a}-confident", dtype, confident, [5] * 7, label_smoothing=a))
            made.append(
                entry(
                    f"smoothed-{a}-gaps",
                    dtype,
                    [[0.0, -gap, -1.5] for gap in (16.5, 64.0, 1000.0, 10000.0)],
                    [0, 1, 0, 1],
                    label_smoothing=a,
                )
            )
            made.append(
                entry(f"smoothed-{a}-offset", dtype, bell(72, 3, 123, 3.0, 1e6), [0, 122, 61], label_smoothing=a)
            )
            made.append(entry(f"smoothed-{a}-one-class", dtype, [[0.0], [-5.0]], [0, 0], label_smoothing=a))
        made.append(entry(f"smoothed-{a}-262144", bfloat, bell(73, 1, 262144), [131071], label_smoothing=a))
        made.append(entry(f"smoothed-{a}-uniform-262144", single, flat(1, 262144, 0.25), [262143], label_smoothing=a))
    for dtype in (half, bfloat, single, double):
        for classes in (7, 1000, 262144):
            made.append(entry(f"uniform-{classes}", dtype, flat(1, classes, 0.25), [classes - 1]))
        made.append(entry("all-but-one-equal-262144", dtype, flat(1, 262144, 0.0, places=[[0, 7, 0.5]]), [262143]))
    return made


def equal_cases() -> list[dict[str, Any]]:
    """All logits equal but the first, or the last, whose term is almost the sum of the others'.

    Each of them is added with the same rounding, which costs the loss the most where the sum passes 2.
    """
    made = []
    for dtype in (single, double):
        for classes in range(2, 301):
            gap = max(float(mp.log((classes - 1) / 1.03)), 0.0)
            logits = flat(2, classes, -gap, places=[[0, 0, 0.0], [1, classes - 1, 0.0]])
            made.append(entry(f"equal-terms-{classes}", dtype, logits, [0, 0]))
    return made


def every_case() -> list[dict[str, Any]]:
    made = [
        *plain_cases(),
        *offset_cases(),
        *gap_cases(),
        *tiny_cases(),
        *edge_cases(),
        *dense_cases(),
        *smoothed_cases(),
        *equal_cases(),
    ]
    names = [one["name"] for one in made]
    assert len(set(names)) == len(names), "two cases share a name"
    return made


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="compare with the file instead of writing it")
    check = parser.parse_args().check
    text = "[\n" + ",\n".join(json.dumps(completed(one)) for one in every_case()) + "\n]\n"
    if not check:
        path.write_text(text, encoding="utf-8")
    elif path.read_text(encoding="utf-8") != text:
        lines = zip(path.read_text(encoding="utf-8").splitlines(), text.splitlines(), strict=False)
        changed = [json.loads(new.rstrip(","))["name"] for old, new in lines if old != new and new.startswith("{")]
        sys.exit(f"{path.name} is not what this script makes: {', '.join(changed) or 'the number of cases'} differ")


if __name__ == "__main__":
    main()
