"""The conformance kit: right kernels of any style pass, each wrong one is caught by the promise it breaks, by name."""

import contextlib
import io
import json
import subprocess
import sys
import textwrap

import numpy as np
import pytest
import toy_library
from wrong_kernels import METHODS, SUMS, WHOLE, WRONG, Right

import xent
from xent.dispatch import eligibility
from xent.dispatch.registry import registry
from xent.testing import (
    PROMISES,
    ArrayLibrary,
    Deviation,
    KernelConformance,
    case_of,
    check_kernel,
    parametrize_with_checks,
    registered_specs,
)
from xent.testing.promises import memory_use

BESIDE = [("ScaleZeroTimesNaN", "ignored_rows"), ("GuardDoesNotTravel", "plan_pickles"), ("NoShift", "random_rows")]
BESIDE += [("OutHalfFilled", "gradient_out")]
CAUGHT = [*((name, promise) for name, (_, promise, _) in WRONG.items()), *BESIDE]
ELSEWHERE = {"declined", "import_light", "extra_cases", "many_elements"}  # each has a test of its own
WITHOUT_CODE = {
    *("declaration", "selected", "ignored_rows", "plan_pickles", "lazy_on_dask", "inputs_unchanged", "out_is_filled"),
    *("far_rows", "extra_memory", "new_values", "loss_with_partial", "whole_calls", "gradient_out"),
    "probability_sums",
}
BY_CHANCE = {"threads", "deterministic", "concurrent_callers"}


def spec_of(name, /, **facts):
    """The spec of one of the kernels of wrong_kernels.py."""
    facts = {**(WRONG[name][2] if name in WRONG else {}), **facts}
    op = facts.pop("op", "dense" if "Dense" in name else "sparse")
    defaults = {"name": name, "op": op, "load": f"wrong_kernels:kernels.{name}", "methods": METHODS[op]}
    return xent.KernelSpec(**{**defaults, "dtypes": frozenset({"float32"}), "block_elements": 1 << 16, **facts})


def multiples_of_eight(shape, strides):
    return shape[-1] % 8 == 0


def only_along_the_last_axis(problem):
    return problem.layout == "last" or "class axis last only"


class TestOwnKernels(KernelConformance):
    """xent's own kernels keep every promise."""

    kernels = (*registered_specs("numpy"), *registered_specs("generic"))


THREADED = {"concurrent_callers", "threads"}
"""The promises that take longest, and that no style of computing makes another thing of."""


@pytest.mark.parametrize(
    ("name", "facts"),
    [
        ("Right", {"dtypes": frozenset({"float16", "float64"})}),
        ("RowByRow", {}),
        ("Online", {}),
        ("RightDense", {"dtypes": frozenset({"float64"})}),
        ("Right", {"guard": multiples_of_eight, "name": "guarded"}),
        ("Right", {"check": only_along_the_last_axis, "name": "choosy", "opt_in": True}),
    ],
    ids=lambda value: value if isinstance(value, str) else "-".join(value),
)
def test_right_kernels_of_different_styles_pass(name, facts):
    report = check_kernel(spec_of(name, **facts), checks=set(PROMISES) - (set() if name == "Right" else THREADED))

    assert report.ok, str(report)


def test_a_right_kernel_of_both_layouts_passes():
    slow = {"many_rows", "row_locality", "many_classes", "many_elements", *THREADED}
    facts = {"layouts": frozenset({"last", "middle"}), "block_elements": None}
    report = check_kernel(spec_of("EveryLayout", **facts), checks=set(PROMISES) - slow)

    assert report.ok, str(report)


def test_a_right_kernel_of_whole_calls_passes():
    report = check_kernel(spec_of("Whole", methods=WHOLE), checks=["declaration", "selected", "whole_calls"])

    assert report.ok and "not run" not in str(report).split("\n", 1)[1], str(report)


def test_a_right_kernel_of_probabilities_passes():
    facts = {"methods": SUMS, "dtypes": frozenset({"float16", "float32", "float64"})}
    report = check_kernel(spec_of("Probabilities", **facts), checks=["declaration", "selected", "probability_sums"])

    assert report.ok and "not run" not in str(report).split("\n", 1)[1], str(report)


def test_every_promise_has_a_kernel_that_breaks_it():
    assert {promise for _, promise in CAUGHT} | ELSEWHERE == set(PROMISES)


def printed(code):
    """What the code prints, or the error that it ends with."""
    out = io.StringIO()
    with contextlib.redirect_stdout(out), np.errstate(all="ignore"), np.printoptions(precision=17, threshold=10**6):
        try:
            exec(code, {})
        except Exception as error:
            return repr(error)
    return out.getvalue()


@pytest.mark.parametrize(("name", "promise"), CAUGHT)
def test_a_wrong_kernel_is_caught_by_the_promise_it_breaks_with_code_that_shows_it(name, promise):
    report = check_kernel(spec_of(name), checks=promise)
    assert not report.ok and report.results[0].broken, str(report)

    code = report.failures[0].snippet
    if not code:
        assert promise in WITHOUT_CODE, name
        return
    dense, right = "targets = " in code or ", targets = " in code, code
    style = "EveryLayout" if "to_block(" in code.split("import", 3)[-1].split("\n", 1)[1] else "Right"
    right = code.replace(f"kernels.{name}", f"kernels.{'RightDense' if dense else style}")

    assert not printed(right).startswith("StopIteration") and "\n" in printed(right), code
    assert printed(right) != printed(code) or promise in BY_CHANCE | {"out_is_filled", "inputs_unchanged"}, code


def test_a_failure_names_the_call_what_came_and_what_is_exact():
    text = str(check_kernel(spec_of("LseMinusLogit"), checks="tiny_losses"))

    assert "BROKEN   tiny_losses" in text and "is 0.0, exact" in text and "from xent.testing import" in text


def test_a_kernel_of_which_nothing_can_be_tried_fails():
    report = check_kernel(spec_of("Right", arrays=frozenset({"nowhere"})))

    assert not report.ok and "NOTHING" in str(report) and "nothing is known of nowhere" in str(report)


def test_what_is_declared_and_not_here_is_listed_with_the_reason():
    report = check_kernel(spec_of("Right", arrays=frozenset({"numpy", "nowhere"})), checks=["tiny_losses"])

    assert report.ok and report.skipped[0].startswith("nowhere: nothing is known of nowhere")


def test_arrays_on_a_device_that_is_not_declared_are_not_tried():
    report = check_kernel(spec_of("Right", devices=frozenset({"cuda"})), checks=["selected"])

    assert not report.ok and "its arrays are made on cpu" in str(report)


def test_what_is_not_declared_must_be_declined(monkeypatch):
    monkeypatch.setattr(eligibility, "why_not", lambda spec, problem, user: [])

    assert not check_kernel(spec_of("Right"), checks="declined").ok


def test_the_generic_kernel_may_serve_everything():
    (spec, _) = registered_specs("generic")

    assert check_kernel(spec, checks="declined").results[0].not_run


@pytest.mark.parametrize(("line", "ok"), [("import scipy", False), ("", True)])
def test_hooks_that_import_a_heavy_library_are_caught(tmp_path, monkeypatch, line, ok):
    code = f"""
        {line}
        import xent
        @xent.hookimpl
        def xent_register_kernels(api):
            return []
    """
    (tmp_path / "some_hooks.py").write_text(textwrap.dedent(code))
    monkeypatch.syspath_prepend(tmp_path)
    report = check_kernel(spec_of("Right"), checks="import_light", hooks="some_hooks")

    assert report.ok is ok and ("loads scipy" in str(report)) is not ok


class CountsIn32Bits(Right):
    """Reads no logit beyond 2³¹ elements."""

    def partial(self, logits, labels, on, off, *, threads):
        if logits.size < 2**31:
            return super().partial(logits, labels, on, off, threads=threads)
        return xent.Partial(*(np.zeros(len(labels), np.float32) for _ in range(4)))


counts_in_32_bits = CountsIn32Bits()


@pytest.mark.skipif(sys.platform != "linux", reason="virtual memory that takes none is had on Linux")
def test_a_kernel_that_counts_its_elements_in_32_bits_is_caught(monkeypatch):
    monkeypatch.setattr(memory_use, "PATIENCE_SECONDS", 1e4)
    monkeypatch.setattr(memory_use, "peak_bytes", lambda call: call() and 0)
    spec = spec_of("Right", load="test_conformance:counts_in_32_bits", block_elements=None)
    report = check_kernel(spec, checks="many_elements")

    assert not report.ok and "32770 rows of 65536 classes" in str(report)


# -------------------- a plugin's statements about its kernel


class Statements:
    """A plugin with statements about a kernel."""

    def __init__(self, *statements):
        self.statements = statements

    @xent.hookimpl
    def xent_conformance(self, spec):
        return self.statements if spec.name in ("Right", "NoShift") else None


@pytest.fixture
def state():
    """Registers a plugin's statements, for one test."""

    def register(*statements):
        xent.register(Statements(*statements), "statements")

    yield register
    xent.unregister("statements")


def test_a_deviation_that_the_plugin_declares_is_no_failure(state):
    state(Deviation("offsets", "it is meant for small logits"))
    report = check_kernel(spec_of("NoShift"), checks="offsets")

    assert report.ok and "deviates offsets" in str(report) and "small logits" in str(report)


def test_a_deviation_that_does_not_occur_is_a_failure(state):
    state(Deviation("offsets", "it is meant for small logits"))
    report = check_kernel(spec_of("Right"), checks="offsets")

    assert not report.ok and "Take the Deviation out" in str(report)


@pytest.mark.parametrize(("name", "ok"), [("Right", True), ("NoShift", False)])
def test_the_cases_that_a_plugin_adds_are_tried(state, name, ok):
    state(case_of("far from 0", np.array([[1e4, 1e4 - 1]]), np.float32))
    report = check_kernel(spec_of(name), checks="extra_cases")

    assert report.ok is ok and report.cases == 5


# -------------------- the call


def test_a_check_leaves_no_trace():
    before = xent.plugins(), list(registry.kernels)
    check_kernel(spec_of("Right"), checks=["tiny_losses", "selected"])

    assert (xent.plugins(), registry.kernels) == before


def test_a_registered_kernel_of_that_name_is_not_mistaken_for_it():
    with pytest.raises(ValueError, match=r"must be the registered kernel 'numpy' \(sparse\) of xent\.numpy"):
        check_kernel(spec_of("Right", name="numpy"))


def test_a_declaration_that_means_nothing_is_refused():
    with pytest.raises(ValueError, match=r"`dtypes` must be a frozenset of any of .*, got 'float32'"):
        check_kernel(spec_of("Right", dtypes="float32"))


def test_an_unknown_promise_is_refused():
    with pytest.raises(ValueError, match=r"check_kernel: `checks` must be .*, got 'tiny'"):
        check_kernel(spec_of("Right"), checks="tiny")


def test_a_quick_look_takes_a_few_promises():
    report = check_kernel(spec_of("Right"), quick=True)

    assert report.ok and 3 <= len(report.results) < len(PROMISES) and report.selected == 6


def test_a_report_is_plain_data_for_json():
    data = json.loads(json.dumps(check_kernel(spec_of("NoShift"), checks=["offsets", "ties"]).to_dict()))

    assert (data["ok"], [result["ok"] for result in data["results"]]) == (False, [True, False][::-1])


def test_a_library_that_xent_has_never_heard_of_can_be_tried():
    shy = ArrayLibrary("toy_library", toy_library.Shy, toy_library.unshy)
    facts = {"arrays": frozenset({"toy_library"}), "methods": frozenset({"partial", "gradient"}), "name": "shy"}
    spec = spec_of("Right", load="xent.backends.generic:sparse", **facts)
    report = check_kernel(spec, library=shy, checks=["selected", "tiny_losses", "infinities", "row_locality"])

    assert report.ok and report.selected == 4, str(report)


# -------------------- pytest

ran = []


@parametrize_with_checks([spec_of("Right")])
def test_a_test_runs_for_every_promise(spec, check):
    ran.append((spec.name, check))

    assert spec.name == "Right" and check in PROMISES


def test_a_class_for_a_kernel_that_is_not_there_says_so():
    with pytest.raises(ValueError, match="must name a registered kernel, got 'nobody'"):
        parametrize_with_checks("nobody")


def pytest_in(folder, *arguments):
    """A run of pytest in a folder of its own."""
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-p", "xent.testing.plugin", *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300)


def test_the_plugin_runs_every_promise_where_no_tests_are_named(tmp_path):
    process = pytest_in(tmp_path, "--kernel", "numpy", "-k", "tiny_losses or selected", "-v")

    assert process.returncode == 0, process.stdout
    assert "numpy-sparse-tiny_losses" in process.stdout and "served in 4 of 4 tests" in process.stdout


def test_the_plugin_refuses_a_kernel_that_is_not_registered(tmp_path):
    process = pytest_in(tmp_path, "--kernel", "nobody")

    assert process.returncode == 4 and "must name a registered kernel, got 'nobody'" in process.stderr


PROJECT = """
import numpy as np, xent
x = np.zeros((2, 3), "float32")
def test_logits():
    with xent.using(trace=True) as decisions:
        xent.sparse_cross_entropy(x, np.array([0, 1]))
    assert decisions[0].kernel == "generic"
def test_more_logits():
    assert xent.sparse_cross_entropy(x, np.array([0, 1])).shape == (2,)
def test_probabilities():
    xent.sparse_cross_entropy(x + 1 / 3, np.array([0, 1]), kind="probabilities")
"""


def test_the_plugin_forces_the_kernel_in_the_tests_of_a_project(tmp_path):
    (tmp_path / "test_project.py").write_text(PROJECT)
    process = pytest_in(tmp_path, "--kernel", "generic", "test_project.py")

    assert process.returncode == 0 and "kernel 'generic' served in 2 of 3 tests" in process.stdout, process.stdout


def test_the_plugin_skips_what_the_kernel_does_not_serve_with_its_reason(tmp_path):
    (tmp_path / "test_project.py").write_text(PROJECT)
    process = pytest_in(tmp_path, "--kernel", "numpy", "test_project.py", "-k", "probabilities", "-rs")

    assert "numpy: kind: probabilities have no partition function" in process.stdout
    assert process.returncode == 1 and "served in 0 of 1 tests" in process.stdout


# -------------------- what must not end in a traceback


@pytest.mark.parametrize("load", ["no_such_module:kernel", "wrong_kernels:nothing", "exits_at_once:kernel"])
def test_a_kernel_that_cannot_be_imported_is_reported(load, tmp_path, monkeypatch):
    (tmp_path / "exits_at_once.py").write_text("raise SystemExit(3)")
    monkeypatch.syspath_prepend(tmp_path)
    report = check_kernel(spec_of("Right", load=load), checks=["declaration", "tiny_losses"])

    assert not report.ok and "cannot be had" in str(report.results[0])


def test_a_guard_that_breaks_is_reported():
    report = check_kernel(spec_of("Right", guard=breaks_down), checks="declaration")

    assert not report.ok and "KeyError" in str(report)


def breaks_down(shape, strides):
    raise KeyError("surprise")


def test_a_test_class_for_a_kernel_that_cannot_be_tried_here_skips_with_the_reason():
    with pytest.raises(pytest.skip.Exception, match="nothing is known of nowhere"):
        KernelConformance().test_a_promise_is_kept(spec_of("Right", arrays={"nowhere"}), "tiny_losses")


class Rude:
    """A plugin whose ``xent_conformance`` breaks."""

    def __init__(self, answer):
        self.answer = answer

    @xent.hookimpl
    def xent_conformance(self, spec):
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


@pytest.mark.parametrize("answer", [KeyError("surprise"), 5, ["a string"]], ids=str)
def test_what_a_plugin_says_of_kernels_may_break_and_they_are_looked_at_all_the_same(answer):
    xent.register(Rude(answer), f"rude {answer}")
    try:
        with pytest.warns(xent.PluginWarning, match="says nothing of kernel 'Right'"):
            report = check_kernel(spec_of("Right"), checks="ties")
    finally:
        xent.unregister(f"rude {answer}")

    assert report.ok


def test_a_deviation_from_what_is_no_promise_is_a_failure(state):
    state(Deviation("tinylosses", "misspelt"))
    report = check_kernel(spec_of("Right"), checks="ties")

    assert not report.ok and "'tinylosses', which is no promise" in str(report)


def test_a_kernel_for_jax_is_held_to_what_jax_can_do():
    pytest.importorskip("jax", reason="JAX is not installed")
    facts = {"arrays": {"jax"}, "methods": {"partial", "gradient"}, "name": "on jax", "dtypes": {"float32", "float64"}}
    spec = spec_of("Right", load="xent.backends.generic:sparse", **facts)
    report = check_kernel(spec, checks=["selected", "declined", "underflow"])

    assert not report.ok and report.skipped == ("float64 on jax: TypeError: its arrays are not of float64",)
    assert "JAX takes a kernel by its FFI targets, and it has none" in str(report)
    assert {result.check: not result.broken for result in report.results} == {
        "selected": False,
        "declined": True,
        "underflow": True,
    }
