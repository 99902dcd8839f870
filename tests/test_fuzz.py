"""The farm of random calls: a moment of it, the calls that failed before, and what it must find."""

import math

import mpmath
import numpy as np
import pytest
import toy_kernels
from fuzz import farm
from fuzz.answers import answer_of
from fuzz.calls import Call, keep, read
from fuzz.doors import door_named, doors
from fuzz.exact_numbers import IS_EXTENDED
from fuzz.farm import CASES, call_number
from fuzz.shrinking import shrink
from fuzz.verdict import faults
from wrong_kernels import METHODS, WRONG

import xent
from xent.backends.generic import schedule
from xent.numerics import fold, reduction, targets

pytestmark = pytest.mark.skipif(not IS_EXTENDED, reason="NumPy's longdouble is float64 on this machine")
SEED = 20_261_130
KEPT = sorted(CASES.glob("*.json"))
inf, nan = math.inf, math.nan


@pytest.fixture(scope="module", autouse=True)
def imported():
    """Every library imported, which the tests' own time leaves out."""
    for door in doors(False):
        assert door.lib is None or door.lib.name == door.variant


def told(tally: farm.Tally) -> list[str]:
    return [f"{call.function} at {fault.door}: {fault.what}: {fault.found}" for _, call, fault in tally.kept]


# -------------------- what it says of xent


def test_the_first_calls_of_a_seed_are_right():
    assert told(farm.run(SEED, calls=25, compiled_share=0)) == []


@pytest.mark.slow
@pytest.mark.parametrize("part", range(4))
def test_every_call_of_a_moment_is_right(part):
    tally = farm.run(SEED, calls=150, start=25 + part, step=4, compiled_share=0)

    assert told(tally) == []
    assert tally.cases > 10 * 100


@pytest.mark.slow
def test_every_call_that_is_compiled_is_right():
    assert told(farm.run(SEED, calls=5, compiled_share=1)) == []


@pytest.mark.slow
def test_every_call_through_one_kernel_is_right(forced):
    tally = farm.run(SEED, calls=200, compiled_share=0, through=lambda door: door.kernel == forced)

    assert told(tally) == []
    assert tally.cases > 200


def again(path) -> list:
    """The faults that a kept call has now, at those of its doors that are here."""
    call, facts = read(path)
    through = [door_named(name) for name in facts["doors"]]
    return faults(call, [door for door in through if door is not None and door.serves(call)])[0]


@pytest.mark.parametrize("path", KEPT, ids=lambda path: path.stem)
def test_a_call_that_failed_before_is_right(path):
    assert again(path) == []


def test_every_call_that_failed_before_through_a_kernel_is_right(forced):
    of_kernel = [path for path in KEPT if any(forced in name for name in read(path)[1]["doors"])]

    assert of_kernel and [again(path) for path in of_kernel] == [[]] * len(of_kernel)


# -------------------- the exact numbers


def by_mpmath(x: list[float], t: list[float]) -> tuple[list, list]:
    """Loss, lse and entropy of a row, and its gradient, by the textbook."""
    with mpmath.workdps(400):
        exps = [mpmath.exp(mpmath.mpf(v)) if v != -inf else mpmath.mpf(0) for v in x]
        total = mpmath.fsum(exps)
        lse, p = mpmath.log(total), [one / total for one in exps]
        loss = mpmath.fsum(b * (lse - a) for a, b in zip(x, t, strict=True) if b)
        entropy = -mpmath.fsum(one * mpmath.log(one) for one in p if one)
        mass = mpmath.fsum(t)
        return [loss, lse, entropy], [mass * one - b for one, b in zip(p, t, strict=True)]


def close(found, exact, *, digits: int = 17) -> bool:
    """Equal to so many digits; of longdouble's own value, not of its rounding to float64."""
    hi = float(found)
    with mpmath.workdps(400):
        value = mpmath.mpf(hi) + mpmath.mpf(float(found - np.longdouble(hi)))
        return bool(abs(value - exact) <= abs(exact) * mpmath.mpf(10) ** -digits)


ROWS = {
    "plain": [0.3, -1.0, 2.0, 2.5],
    "ties": [1.0, 1.0, 0.0, 1.0],
    "tiny": [0.0, -40.0, -90.0, -200.0],
    "offset": [1e6, 1e6 + 1, 1e6 - 3, 1e6 + 0.25],
    "masked": [0.0, -inf, 3.0, 1.0],
    "far": [1e300, -1e300, 1e299, 0.0],
}


@pytest.mark.parametrize("name", [name for name in ROWS if name != "far"])
@pytest.mark.parametrize("label", range(4))
def test_the_exact_numbers_are_those_of_mpmath(name, label):
    x = np.asarray([ROWS[name]])
    if x[0, label] == -inf:
        return
    numbers, slopes = by_mpmath(ROWS[name], [float(one == label) for one in range(4)])
    loss = answer_of(Call("sparse", x, np.asarray([label]))).numbers
    statistics = answer_of(Call("statistics", x, np.asarray([label]))).numbers

    assert close(loss["loss"].exact[0], numbers[0])
    assert close(statistics["lse"].exact[0], numbers[1])
    assert close(statistics["entropy"].exact[0], numbers[2])
    largest = max(abs(one) for one in slopes)
    assert all(
        abs(float(a) - float(b)) <= 1e-17 * largest for a, b in zip(loss["gradient"].exact[0], slopes, strict=True)
    )


def test_the_exact_sum_of_gaps_does_not_overflow():
    x = np.asarray([[0.0, -1.2e38, -1.2e38, -1.2e38]], np.float32)
    exact = answer_of(Call("sparse", x, np.asarray([0]), {"label_smoothing": 0.1})).numbers["loss"].exact

    assert close(exact[0], 3 * mpmath.mpf(float(x[0, 1])) * mpmath.mpf(-0.1) / 4, digits=15)


@pytest.mark.parametrize("log_p", [-1e-12, -0.3, -0.8, -12.0, -80.0])
def test_the_exact_binary_numbers_of_log_probabilities_are_those_of_mpmath(log_p):
    call = Call("binary", np.asarray([log_p]), np.asarray([0.25]), {"kind": "log_probabilities"})
    numbers = answer_of(call).numbers
    with mpmath.workdps(60):
        p = mpmath.exp(mpmath.mpf(log_p))
        exact = -0.25 * mpmath.mpf(log_p) - 0.75 * mpmath.log(1 - p)
        slope = -0.25 + 0.75 * p / (1 - p)

    assert close(numbers["loss"].exact[0], exact)
    assert close(numbers["gradient"].exact[0], slope, digits=16)


@pytest.mark.parametrize(
    ("x", "loss"),
    [([nan, 0], nan), ([-inf, -inf], nan), ([inf, inf], nan), ([inf, 0], 0), ([0, inf], inf), ([-inf, 0], inf)],
)
def test_the_exact_loss_at_the_edges_is_the_promised_one(x, loss):
    exact = answer_of(Call("sparse", np.asarray([x], float), np.asarray([0]))).numbers["loss"].exact

    assert np.array_equal(exact.astype(float), [loss], equal_nan=True)


# -------------------- what it must find


def finds(calls: int = 150, **how) -> set[str]:
    """The kinds of fault found before the first call that has one is over."""
    tally = farm.run(SEED, calls=calls, compiled_share=0, stops=True, shrinks=False, **how)
    return {what for _, _, what in tally.faults}


def through_numpy(door) -> bool:
    return door.variant == "numpy" and door.kernel is None


@pytest.fixture
def in_numpys_place():
    """Registers one of the kernels of wrong_kernels.py, which then serves before xent's own."""
    names = []

    def register(name):
        facts = dict(WRONG[name][2]) if name in WRONG else {}
        op = facts.pop("op", "sparse")
        facts = {"methods": METHODS[op], "dtypes": frozenset({"float32"}), "block_elements": 1 << 16, **facts}
        spec = xent.KernelSpec(name=name, op=op, load=f"wrong_kernels:kernels.{name}", priority=1000, **facts)
        xent.register(toy_kernels.Plugin(spec), name)
        names.append(name)

    yield register
    for name in names:
        xent.unregister(name)


def test_a_right_kernel_in_the_place_of_xents_own_is_no_fault(in_numpys_place):
    in_numpys_place("Right")

    assert finds(40, through=through_numpy) == set()


FOUND = (
    *("NoShift", "TailOfSeven", "HalfAccumulates", "SingleForDouble", "AllTiesCountedOut", "RankOfTies", "GapClamped"),
    *("NaNLeaks", "FirstTileMasked", "WrapsMinusOne", "SmoothingIgnored", "OffTheSimplex", "WritesItsInput"),
)
"""The kernels of wrong_kernels.py whose faults show soon."""


@pytest.mark.slow
@pytest.mark.parametrize("name", FOUND)
def test_a_wrong_kernel_in_the_place_of_xents_own_is_found(in_numpys_place, name):
    in_numpys_place(name)

    assert finds(through=through_numpy)


def smoothing_of_the_other_classes(label_smoothing, classes):
    return (1.0, 0.0) if label_smoothing == 0 else (1.0 - label_smoothing, label_smoothing / max(classes - 1, 1))


def merge_without_step(xp, a, b):
    return fold.Partial(*right_merge(xp, a, b)[:2], a.target_gap + b.target_gap, a.target_sum + b.target_sum)


right_merge = fold.merge
PLANTED = {
    "smoothing among the other classes": (schedule, "smoothing", smoothing_of_the_other_classes),
    "nothing is ignored": (targets, "ignored_by_label", lambda labels, ignore_index: None),
    "the gap between slices is lost": (fold.merge_tree, "__defaults__", (merge_without_step,)),
    "a mean over all rows": (reduction.Reducer, "denominator", lambda self, xp, mean, rows, like: like.shape[0]),
    "weights that add": (targets, "times", lambda a, b: b if a is None else a if b is None else a + b),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", PLANTED)
def test_an_option_that_is_broken_on_purpose_is_found(monkeypatch, name):
    where, what, broken = PLANTED[name]
    monkeypatch.setattr(where, what, broken)

    assert finds(through=through_numpy)


# -------------------- what it does with what it found


@pytest.fixture
def failing(monkeypatch):
    """A call of many numbers with one fault, and the fault."""
    monkeypatch.setattr(schedule, "smoothing", smoothing_of_the_other_classes)
    rng = np.random.default_rng(1)
    options = {"label_smoothing": 0.5, "sample_weight": rng.random((4, 5)), "axis": 1, "reduction": "sum"}
    call = Call("sparse", rng.standard_normal((4, 9, 5)), rng.integers(0, 9, (4, 5)), options, {"targets": "F"})
    return call, faults(call, [door_named("numpy")])[0][0]


def test_a_failing_call_is_made_small(failing):
    call, fault = shrink(*failing)

    assert call.predictions.size <= 2
    assert set(call.options) <= {"label_smoothing", "axis"} and not call.layouts
    assert (fault.door, fault.what) == ("numpy", "loss: over its budget")


def test_a_failing_call_is_kept_and_read_again(failing, tmp_path):
    call, fault = failing
    call = call.replace(predictions=np.where(call.predictions > 1, -inf, call.predictions))
    path = keep(tmp_path, call.replace(options=call.options | {"reduction": xent.Mean("all")}), fault)
    again, facts = read(path)

    assert facts["doors"] == ["numpy"]
    assert again.predictions.tobytes() == call.predictions.tobytes()
    assert again.options["sample_weight"].tobytes() == call.options["sample_weight"].tobytes()
    assert again.reduction == xent.Mean("all")


def test_call_number_i_of_a_seed_is_the_same_each_time():
    first, again = call_number(SEED, 7)[0], call_number(SEED, 7)[0]

    assert first.function == again.function
    assert [one.tobytes() for one in first.arrays().values()] == [one.tobytes() for one in again.arrays().values()]
