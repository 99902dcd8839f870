"""Which kernel serves a call, why not another, and that asking again costs no decision."""

import concurrent.futures
import functools
import pickle
import subprocess
import sys
import threading
import time
import warnings

import numpy as np
import pytest
import toy_kernels
import toy_lazy
from toy_kernels import Plugin, logits, spec
from toy_library import Shy

import xent
from xent.contract.problem import Options
from xent.dispatch import calls, selection, settings
from xent.dispatch.registry import registry


@pytest.fixture
def plugin():
    """Registers plugins for one test."""
    names = []

    def register(*specs, name="toy"):
        xent.register(Plugin(*specs), name)
        names.append(name)

    yield register
    for name in names:
        if name in registry.records:
            registry.manager.has_plugin(name) and xent.unregister(name)
            registry.records.pop(name, None)
    settings.forget_plans()


def chosen(x, y, **options):
    return xent.explain(xent.sparse_cross_entropy, x, y, **options).kernel


def test_the_numpy_kernel_is_chosen_for_numpy_without_plugins():
    assert chosen(*logits()) == "numpy"


def test_a_plugin_takes_over_what_it_declares(plugin):
    plugin(spec())
    x, y = logits()
    toy_kernels.loopback.calls = 0

    xent.sparse_cross_entropy(x, y)

    assert toy_kernels.loopback.calls == 1


def test_a_plugin_does_not_change_a_result_it_only_computes(plugin):
    x, y = logits()
    with xent.using(kernel="generic"):
        before = xent.sparse_cross_entropy(x, y)
    plugin(spec())

    assert (xent.sparse_cross_entropy(x, y) == before).all()


def test_what_a_kernel_does_not_declare_is_declined_with_the_reason(plugin):
    plugin(spec())
    decision = xent.explain(xent.sparse_cross_entropy, *logits(dtype="float64"))
    (verdict,) = [one for one in decision.verdicts if one.kernel == "loopback"]

    assert verdict.reasons == ("dtype: float64 is not among float32",)


def test_the_reasons_come_from_the_predicate_that_decides(plugin, monkeypatch):
    plugin(spec())
    monkeypatch.setattr(selection, "why_not", lambda one, problem, user: ["no"] if one.name != "generic" else [])
    decision = xent.explain(xent.sparse_cross_entropy, *logits())

    assert (decision.kernel, decision.verdicts[0].reasons) == ("generic", ()) and decision.verdicts[1].reasons == (
        "no",
    )


def test_a_kernel_without_a_gradient_is_declined_for_loss_and_gradient(plugin):
    plugin(spec(methods=frozenset({"partial"})))
    x, y = logits()
    with xent.using(trace=True) as decisions:
        xent.value_and_grad(xent.sparse_cross_entropy)(x, y)

    assert decisions[0].kernel == "numpy"


def test_probabilities_take_no_kernel_and_the_decision_says_why():
    x, y = logits()
    decision = xent.explain(xent.sparse_cross_entropy, abs(x), y, kind="probabilities")

    assert "no partition function" in decision.verdicts[1].reasons[0]


def test_a_check_that_declines_gives_its_own_reason(plugin):
    plugin(spec(check=lambda problem: "needs an even moon"))
    decision = xent.explain(xent.sparse_cross_entropy, *logits())

    assert ("check: needs an even moon",) in [one.reasons for one in decision.verdicts]


def test_a_guard_passes_a_call_to_the_next_kernel_within_one_plan(plugin):
    plugin(spec(guard=lambda shape, strides: shape[0] > 10))
    toy_kernels.loopback.calls = 0
    for rows in (7, 11):
        xent.sparse_cross_entropy(*logits(rows))

    assert toy_kernels.loopback.calls == 1


def test_a_call_that_the_guard_declines_is_traced_with_the_kernel_that_ran(plugin):
    plugin(spec(guard=lambda shape, strides: False))
    with xent.using(trace=True) as decisions:
        xent.sparse_cross_entropy(*logits())

    assert decisions[0].kernel == "numpy"


def test_an_explanation_asks_the_guard_as_the_call_does(plugin):
    plugin(spec(guard=lambda shape, strides: shape[0] > 10))
    x, y = logits()
    with xent.using(trace=True) as decisions:
        xent.sparse_cross_entropy(x, y)
    decision = xent.explain(xent.sparse_cross_entropy, x, y)

    assert decision.kernel == decisions[0].kernel == "numpy" and chosen(*logits(11)) == "loopback"
    assert "guard: declines the shape of this call" in str(decision) and str(decision).count("chosen") == 1


def test_a_kernel_whose_library_is_missing_gives_way_to_generic_with_a_warning(plugin, tmp_path, monkeypatch):
    (tmp_path / "needs_cuda.py").write_text("raise OSError('libcudart.so.12: cannot open shared object file')")
    monkeypatch.syspath_prepend(tmp_path)
    plugin(spec(name="cuda", load="needs_cuda:kernel"))
    with pytest.warns(xent.PluginWarning, match=r"'cuda' of toy cannot be imported here \(OSError: libcudart"):
        loss = xent.sparse_cross_entropy(*logits())

    assert loss.shape == (7,)


def test_opt_in_kernels_wait_to_be_asked_for(plugin):
    plugin(spec(opt_in=True))
    alone = chosen(*logits())
    with xent.using(prefer="loopback"):
        asked = chosen(*logits())

    assert (alone, asked) == ("numpy", "loopback")


def test_the_user_goes_before_the_site_and_the_site_before_priority(plugin):
    class Policy:
        @xent.hookimpl
        def xent_order_kernels(self, candidates):
            return sorted(candidates, key=lambda name: name != "numpy")

    plugin(spec(priority=10), spec(name="second", priority=5))
    by_priority = chosen(*logits())
    xent.register(Policy(), "policy")
    try:
        by_site = chosen(*logits())
        with xent.using(prefer="second"):
            by_user = chosen(*logits())
    finally:
        xent.unregister("policy")

    assert (by_priority, by_site, by_user) == ("loopback", "numpy", "second")


def test_a_tie_between_strangers_is_broken_by_name_with_one_warning_that_names_both(plugin):
    plugin(spec(name="tied-b"), name="one")
    plugin(spec(name="tied-a"), name="two")
    with pytest.warns(
        xent.PluginWarning,
        match="'tied-a' of plugin 'two' .* and 'tied-b' of plugin 'one' .* have the same priority.*XENT_PREFER",
    ):
        first = chosen(*logits())

    assert first == "tied-a"


def test_disabling_works_by_kernel_by_plugin_and_for_everything_foreign(plugin):
    plugin(spec())
    found = []
    for disable in ("loopback", "toy", "*"):
        with xent.using(disable=disable):
            found.append(chosen(*logits()))

    assert found == ["numpy"] * 3


def test_a_forced_kernel_that_cannot_serve_raises_with_every_reason(plugin):
    plugin(spec())
    x, y = logits(dtype="float64")
    with xent.using(kernel="loopback"), pytest.raises(ValueError, match="cannot serve this call") as caught:
        xent.sparse_cross_entropy(x, y)

    assert "loopback: dtype: float64 is not among float32" in str(caught.value)


def test_a_forced_kernel_that_nobody_registered_raises():
    with xent.using(kernel="nobody"), pytest.raises(ValueError, match="'nobody', which is not registered"):
        xent.sparse_cross_entropy(*logits())


def test_a_preferred_kernel_that_cannot_serve_warns_once_and_the_call_goes_on(plugin):
    plugin(spec(name="wanted"))
    x, y = logits(dtype="float64")
    with xent.using(prefer="wanted"):
        with pytest.warns(xent.PluginWarning, match="preferred kernel 'wanted' is not used.*float64"):
            xent.sparse_cross_entropy(x, y)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            loss = xent.sparse_cross_entropy(x, y)

    assert loss.shape == (7,)


def test_a_plan_hit_makes_no_decision(monkeypatch):
    x, y = logits()
    first = xent.sparse_cross_entropy(x, y)
    monkeypatch.setattr(calls, "compose", None)

    assert (xent.sparse_cross_entropy(x, y) == first).all()


def test_arrays_that_do_not_fit_are_refused_on_a_plan_hit_too():
    x, y = logits()
    xent.sparse_cross_entropy(x, y)
    with pytest.raises(ValueError, match=r"`labels` must have shape \(7,\)"):
        xent.sparse_cross_entropy(x, y[:-1])
    with pytest.raises(ValueError, match="at least one class"):
        xent.sparse_cross_entropy(x[:, :0], y)


def test_plans_are_told_apart_by_everything_a_kernel_may_ask_about():
    x, y = logits()
    settings.forget_plans()
    xent.sparse_cross_entropy(x, y)
    xent.sparse_cross_entropy(x.astype("float64"), y)
    xent.sparse_cross_entropy(x, y.astype("uint8"))
    xent.sparse_cross_entropy(x, y, reduction="mean")
    xent.sparse_cross_entropy(x, y, sample_weight=np.ones(7))

    assert len(settings.current().plans) == 5


def test_the_plans_kept_are_bounded(monkeypatch):
    monkeypatch.setattr(calls, "PLANS_AT_MOST", 8)
    x, y = logits()
    for step in range(30):
        xent.sparse_cross_entropy(x, y, label_smoothing=step / 64)

    assert len(settings.current().plans) <= 8


def test_a_list_of_ignored_labels_is_a_plan_of_its_own():
    x, y = logits()
    loss = xent.sparse_cross_entropy(x, y, ignore_index=[0, 1])

    assert (loss == 0).tolist() == [True, True, False, False, False, True, True]


def test_explaining_computes_nothing_and_keeps_no_plan():
    settings.forget_plans()
    x, y = logits()
    xent.explain(xent.sparse_cross_entropy, np.full_like(x, np.nan), y + 100)

    assert len(settings.current().plans) == 0


def test_a_decision_prints_a_line_for_every_candidate(plugin):
    plugin(spec())
    text = str(xent.explain(xent.sparse_cross_entropy, *logits()))

    starts = [line.split()[:2] for line in text.splitlines()[1:]]

    assert starts == [["*", "loopback"], ["numpy", "eligible,"], ["generic", "eligible,"]]


def test_a_decision_is_plain_data_for_json():
    data = xent.explain(xent.sparse_cross_entropy, *logits()).to_dict()

    assert data["kernel"] == "numpy" and data["verdicts"][0]["chosen"] is True
    assert set(data["verdicts"][0]) == {"kernel", "owner", "chosen", "reasons", "seconds"}


def test_a_candidate_that_is_slow_to_say_whether_it_can_serve_shows_it(plugin):
    plugin(spec(check=lambda problem: time.sleep(0.02) or "not today"))
    decision = xent.explain(xent.sparse_cross_entropy, *logits())
    seconds = {one.kernel: one.seconds for one in decision.verdicts}

    assert seconds["loopback"] >= 0.02 > seconds["numpy"] > 0
    assert f"not today  (toy)  {seconds['loopback'] * 1e6:.1f} µs" in str(decision)


def test_decisions_are_equal_whatever_it_took_to_reach_them():
    first, second = (xent.explain(xent.sparse_cross_entropy, *logits()) for _ in range(2))

    assert [one.seconds for one in first.verdicts] != [one.seconds for one in second.verdicts]
    assert first == second and hash(first) == hash(second)


def test_the_decision_for_a_loss_with_its_gradient_is_explained_too(plugin):
    plugin(spec(methods=frozenset({"partial"})))
    with_gradient = xent.value_and_grad(functools.partial(xent.sparse_cross_entropy, label_smoothing=0.5))
    decision = xent.explain(functools.partial(with_gradient, reduction="sum"), *logits())

    assert decision.kernel == "numpy" and decision.verdicts[-1].reasons == ("method: it has no gradient",)
    assert (decision.problem.options.label_smoothing, decision.problem.options.reduction) == (0.5, "sum")
    assert chosen(*logits()) == "loopback"


def test_the_trace_holds_what_ran_in_order():
    x, y = logits()
    with xent.using(trace=True) as decisions:
        xent.sparse_cross_entropy(x, y)
        with xent.using(kernel="generic"):
            xent.sparse_cross_entropy(x, y)

    assert [one.kernel for one in decisions] == ["numpy", "generic"]


def test_plans_and_decisions_survive_pickling():
    x, y = logits()
    xent.sparse_cross_entropy(x, y)
    for plan in settings.current().plans.values():
        again = pickle.loads(pickle.dumps(plan))

        assert again == plan and str(again.decision) == str(plan.decision)


def test_a_pickled_plan_is_small():
    xent.sparse_cross_entropy(*logits())

    assert max(len(pickle.dumps(plan)) for plan in settings.current().plans.values()) < 3000


def test_an_error_while_a_plugins_kernel_computes_names_the_plugin_and_is_not_retried(plugin):
    plugin(spec(load="toy_kernels:failing"))
    with pytest.raises(ArithmeticError, match="the kernel broke") as caught:
        xent.sparse_cross_entropy(*logits())

    assert "kernel 'loopback' of plugin 'toy'" in caught.value.__notes__[0]


def test_a_bad_label_is_not_blamed_on_the_plugin(plugin):
    plugin(spec())
    with pytest.raises(xent.LabelError) as caught:
        xent.sparse_cross_entropy(logits()[0], np.full(7, 9))

    assert not hasattr(caught.value, "__notes__")


def test_a_kernel_is_told_how_many_threads_it_may_use(plugin):
    plugin(spec(load="toy_kernels:threads"))
    toy_kernels.threads.seen.clear()
    for count in (1, 3):
        with xent.using(threads=count):
            xent.sparse_cross_entropy(*logits())

    assert toy_kernels.threads.seen == [1, 3]


def test_a_worker_that_lacks_the_kernel_uses_generic_with_one_warning(plugin):
    plugin(spec(name="absent", load="no_such_module:kernel"))
    x, y = logits()
    with pytest.warns(xent.PluginWarning, match="'absent' of toy cannot be imported here"):
        loss = xent.sparse_cross_entropy(x, y)

    assert loss.shape == (7,)


EVERYTHING = {
    "methods": {"partial", "loss", "gradient", "loss_and_gradient"},
    "layouts": {"last", "middle"},
    "load": "no_such_module:kernel",
}
"""What a kernel declares that takes whole arrays, and that no process can import."""
GONE = (
    *(spec(name="gone", op=op, **EVERYTHING) for op in ("sparse", "dense")),
    spec(name="counts", **{**EVERYTHING, "methods": {"partial", "statistics"}}, priority=-1),
)
CALLS_OF_EVERY_METHOD = (
    xent.sparse_cross_entropy,
    xent.value_and_grad(xent.sparse_cross_entropy),
    functools.partial(xent.sparse_cross_entropy, label_smoothing=0.5, reduction="mean"),
    xent.row_statistics,
    lambda x, y, axis: xent.cross_entropy(x, abs(x), axis=axis),
    lambda x, y, axis: xent.value_and_grad(xent.cross_entropy)(x, abs(x), axis=axis),
)


@pytest.mark.filterwarnings("ignore:.*cannot be imported here")
@pytest.mark.parametrize("call", CALLS_OF_EVERY_METHOD, ids=range(len(CALLS_OF_EVERY_METHOD)))
@pytest.mark.parametrize("shape", [(7, 5), (2, 5, 3)])
def test_generic_in_the_place_of_an_absent_kernel_has_its_own_methods_and_blocks(plugin, call, shape):
    x = np.random.default_rng(3).standard_normal(shape).astype("float32")
    y = np.arange(x.size // 5).reshape(shape[0], *shape[2:]) % 5
    plugin(*GONE)
    with xent.using(kernel="generic"):
        expected = call(x, y, axis=1)

    with xent.using(trace=True) as decisions:
        found = call(x, y, axis=1)

    assert decisions[0].kernel in ("gone", "counts")
    found, expected = (result if isinstance(result, tuple) else (result,) for result in (found, expected))
    assert [array.tobytes() for array in found] == [array.tobytes() for array in expected]


IN_ANOTHER_PROCESS = """
import pickle, sys, warnings
from xent.contract.problem import NO_WEIGHTS
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    plan, x, y = pickle.loads(sys.stdin.buffer.read())
    loss = plan(x, y, NO_WEIGHTS)
print(loss.tobytes().hex(), *(str(one.message) for one in caught))
"""


@pytest.mark.slow
def test_a_plan_that_is_sent_to_a_process_without_its_kernel_is_followed_by_generic(plugin, tmp_path, monkeypatch):
    (tmp_path / "only_here.py").write_text("import toy_kernels\nkernel = toy_kernels.loopback")
    monkeypatch.syspath_prepend(tmp_path)
    plugin(spec(name="homely", **{**EVERYTHING, "load": "only_here:kernel"}))
    x, y = logits()
    with xent.using(kernel="generic"):
        expected = xent.sparse_cross_entropy(x, y)
    settings.forget_plans()
    with pytest.raises(AttributeError, match="'Loopback' object has no attribute 'loss'"):  # here it is imported
        xent.sparse_cross_entropy(x, y)
    (plan,) = settings.current().plans.values()
    sent = pickle.dumps((plan, x, y))
    command = [sys.executable, "-c", IN_ANOTHER_PROCESS]
    told = subprocess.run(command, input=sent, capture_output=True, cwd=tmp_path.parent, timeout=60)

    assert told.returncode == 0, told.stderr
    bits, _, message = told.stdout.decode().partition(" ")
    assert bits == expected.tobytes().hex()
    assert "kernel 'homely' of toy cannot be imported here (ModuleNotFoundError" in message


def test_a_worker_that_lacks_a_forced_kernel_fails(plugin):
    plugin(spec(name="absent", load="no_such_module:kernel"))
    with xent.using(kernel="absent"), pytest.raises(ModuleNotFoundError):
        xent.sparse_cross_entropy(*logits())


def test_the_first_call_from_sixteen_threads_is_as_good_as_from_one():
    code = """
import concurrent.futures, threading, numpy as np, xent
x, y, gate = np.zeros((5, 4), "float32"), np.arange(5) % 4, threading.Barrier(16)
def call(_):
    gate.wait()
    return xent.sparse_cross_entropy(x, y).tolist()
with concurrent.futures.ThreadPoolExecutor(16) as pool:
    assert len({tuple(loss) for loss in pool.map(call, range(16))}) == 1
assert len([one for one in xent.plugins() if one.name == "xent.numpy"]) == 1
"""
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True, timeout=60)


def test_settings_of_one_thread_do_not_leak_into_another():
    x, y = logits()
    gate = threading.Barrier(2)

    def call(kernel):
        with xent.using(kernel=kernel, trace=True) as decisions:
            gate.wait()
            xent.sparse_cross_entropy(x, y)
            return decisions[0].kernel

    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        assert list(pool.map(call, ("numpy", "generic"))) == ["numpy", "generic"]


def test_options_are_equal_to_the_tuple_that_losses_hand_over():
    assert Options() == (-1, "logits", "none", None, 0.0, 0, None)


SHY_CALLS = (xent.sparse_cross_entropy, xent.value_and_grad(xent.sparse_cross_entropy), xent.row_statistics)


def shy_values(call):
    """What a call says of arrays of a library unknown to xent, as NumPy arrays."""
    answer = call(*(Shy(one) for one in logits()))
    several = answer if isinstance(answer, tuple) else (answer,)

    assert all(isinstance(one, Shy) for one in several)
    return [one.array for one in several]


@pytest.mark.parametrize("call", SHY_CALLS, ids=["loss", "gradient", "statistics"])
def test_an_array_library_unknown_to_xent_works_through_generic(call):
    with xent.using(kernel="generic"):
        plain = call(*logits())
    for found, expected in zip(shy_values(call), plain if isinstance(plain, tuple) else (plain,), strict=True):
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("call", SHY_CALLS, ids=["loss", "gradient", "statistics"])
def test_a_plugins_kernel_computes_for_a_library_unknown_to_xent(plugin, call):
    before = shy_values(call)
    methods = frozenset({"partial", "gradient", "statistics"})
    plugin(spec(arrays=frozenset({"toy_library"}), methods=methods))
    toy_kernels.loopback.calls = 0
    after = shy_values(call)

    assert toy_kernels.loopback.calls > 0
    for one, other in zip(after, before, strict=True):
        np.testing.assert_array_equal(one, other)


# A plugin's backend for a lazy library of its own (toy_lazy.py).


@pytest.fixture
def lazy():
    """Logits and labels that are made when they are asked for, and the backend for them."""
    xent.register(toy_lazy.Plugin(), "toy-lazy")
    x, y = logits(rows=11)
    yield toy_lazy.later(x, 4), toy_lazy.later(y, 4)
    if registry.manager.has_plugin("toy-lazy"):
        xent.unregister("toy-lazy")


def test_a_plugins_backend_builds_a_lazy_result_without_computing_a_chunk(lazy):
    def refuse():
        raise AssertionError("computed too early")

    x, y = (toy_lazy.Later([refuse] * 3, one.shape, one.dtype) for one in lazy)
    loss = xent.sparse_cross_entropy(x, y)

    assert isinstance(loss, toy_lazy.Later)
    with pytest.raises(AssertionError, match="computed too early"):
        loss.compute()


@pytest.mark.parametrize("weight", [None, np.arange(11) / 7], ids=["unweighted", "weighted"])
def test_rows_of_a_plugins_lazy_library_are_those_of_numpy_bit_for_bit(lazy, weight):
    lazy_weight = None if weight is None else toy_lazy.later(weight, 4)
    found = xent.sparse_cross_entropy(*lazy, sample_weight=lazy_weight).compute()

    assert (found == xent.sparse_cross_entropy(*logits(rows=11), sample_weight=weight)).all()


def test_the_decision_for_a_plugins_lazy_library_names_the_kernel_of_its_chunks(lazy):
    decision = xent.explain(xent.sparse_cross_entropy, *lazy)

    assert (decision.backend, decision.kernel, decision.inner.kernel) == ("later", "numpy", "numpy")
    assert "numpy/cpu/float32" in str(decision.inner.problem)


def test_a_kernel_of_another_plugin_computes_the_chunks_that_its_guard_lets_pass(lazy, plugin):
    plugin(spec(guard=lambda shape, strides: shape[0] == 4))
    toy_kernels.loopback.calls = 0
    found = xent.sparse_cross_entropy(*lazy).compute()

    assert toy_kernels.loopback.calls == 2  # chunks of 4, 4 and 3 rows
    np.testing.assert_allclose(found, xent.sparse_cross_entropy(*logits(rows=11)), rtol=1e-6)


def test_a_lazy_result_of_a_plugins_backend_survives_pickling(lazy):
    loss = xent.sparse_cross_entropy(*lazy)

    assert (pickle.loads(pickle.dumps(loss)).compute() == loss.compute()).all()


@pytest.mark.parametrize("name", ["later", "toy-lazy", "*"])
def test_a_backend_is_disabled_by_its_name_by_its_plugins_and_with_everything_foreign(lazy, name):
    with xent.using(disable=name):
        decision = xent.explain(xent.sparse_cross_entropy, *lazy)

    assert decision.backend == "generic"


@pytest.mark.parametrize("load", ["toy_lazy:missing", "toy_kernels:broken_schedule"])
def test_an_error_in_a_plugins_backend_names_the_plugin(load):
    class Backend:
        @xent.hookimpl
        def xent_register_backends(self):
            return [xent.BackendSpec(name="torn", load=load, arrays=frozenset({"toy_library"}))]

    xent.register(Backend(), "shy")
    try:
        with pytest.raises((AttributeError, ArithmeticError)) as caught:
            xent.sparse_cross_entropy(*(Shy(one) for one in logits()))
    finally:
        xent.unregister("shy")

    assert caught.value.__notes__ == [
        "xent: raised while backend 'torn' of plugin 'shy' (no distribution) was at work; "
        "XENT_DISABLE=torn goes around it."
    ]


def test_a_plugin_is_set_aside_with_all_its_kernels_and_backends_by_a_check_that_breaks():
    class Two(Plugin, toy_lazy.Plugin):
        """A plugin of kernels and a backend."""

    def check(problem):
        raise KeyError("surprise")

    xent.register(Two(spec(name="sound"), spec(name="torn", check=check, priority=-1)), "two")
    with pytest.warns(xent.PluginWarning, match="plugin 'two' .* is set aside"), xent.using(trace=True) as decisions:
        for _ in range(2):
            xent.sparse_cross_entropy(*logits())
    left = [one for one in (*registry.kernels, *registry.backends) if one.owner == "two"]
    registry.records.pop("two")

    assert ([one.kernel for one in decisions], left) == (["numpy", "numpy"], [])


def test_a_forced_kernel_whose_guard_declines_the_call_raises(plugin):
    plugin(spec(guard=lambda shape, strides: False))
    with xent.using(kernel="loopback"), pytest.raises(ValueError, match=r"whose guard declines float32\[7, 5\]"):
        xent.sparse_cross_entropy(*logits())


def test_a_site_policy_that_breaks_is_set_aside_and_the_call_goes_on(plugin):
    class Policy:
        @xent.hookimpl
        def xent_order_kernels(self, candidates):
            raise KeyError("surprise")

    plugin(spec())
    xent.register(Policy(), "policy")
    with pytest.warns(xent.PluginWarning, match="plugin 'policy' .* is set aside: KeyError"):
        loss = xent.sparse_cross_entropy(*logits())

    assert loss.shape == (7,) and registry.records.pop("policy").status == "broken"


def test_an_ignored_label_given_as_a_number_is_a_plan_hit_from_the_second_call_on(monkeypatch):
    x, y = logits()
    first = xent.sparse_cross_entropy(x, y, ignore_index=1)
    monkeypatch.setattr(calls, "compose", None)
    monkeypatch.setattr(calls, "plan_and_call", None)

    assert (xent.sparse_cross_entropy(x, y, ignore_index=1) == first).all()


def test_means_whose_empty_value_is_any_nan_share_a_plan():
    x, y = logits()
    settings.forget_plans()
    for _ in range(3):
        xent.sparse_cross_entropy(x, y, reduction=xent.Mean(empty=float("nan")))

    assert len(settings.current().plans) == 1 and pickle.loads(pickle.dumps(xent.Mean())) == xent.Mean()


def test_an_explanation_takes_what_the_call_takes():
    xarray = pytest.importorskip("xarray")
    x, y = logits()
    weight = xarray.DataArray(np.ones(7))

    assert xent.explain(xent.sparse_cross_entropy, x, y, sample_weight=weight).kernel == "numpy"


def test_arrays_of_a_subclass_are_served_as_the_arrays_they_are():
    class Tagged(np.ndarray):
        pass

    x, y = logits()
    loss, gradient = xent.value_and_grad(xent.sparse_cross_entropy)(x.view(Tagged), y)

    assert (type(loss), type(gradient)) == (np.ndarray, np.ndarray)


MIDDLE = {"load": "toy_kernels:middle", "methods": frozenset({"partial", "gradient", "statistics"})}


@pytest.mark.parametrize("layouts", [{"last", "middle"}, {"last"}], ids=["declared", "not declared"])
def test_a_kernel_that_declares_the_middle_is_handed_the_class_axis_there_and_all_at_once(plugin, layouts):
    x = np.random.default_rng(3).standard_normal((3, 5, 2, 4)).astype("f4")
    y = np.arange(24).reshape(3, 2, 4) % 5
    calls = (xent.value_and_grad(xent.sparse_cross_entropy), xent.row_statistics)
    with xent.using(kernel="generic"):
        expected = [call(x, y, axis=1) for call in calls]
    plugin(spec(layouts=frozenset(layouts), **MIDDLE))
    toy_kernels.middle.seen.clear()
    found = [call(x, y, axis=1) for call in calls]

    assert set(toy_kernels.middle.seen) == ({(3, 5, 8)} if "middle" in layouts else {(24, 5)})
    for mine, theirs in zip(found, expected, strict=True):
        for one, other in zip(mine, theirs, strict=True):
            np.testing.assert_array_equal(one, other)


def test_softmax_and_class_weights_of_a_kernel_that_wants_everything_go_in_blocks_of_our_own(plugin):
    x = np.random.default_rng(4).standard_normal((3, 5, 2, 4)).astype("f4")
    calls = (
        lambda: xent.softmax(x, axis=1),
        lambda: xent.cross_entropy(x, abs(x), axis=1, class_weight=[1, 2, 3, 4, 5]),
    )
    expected = [call() for call in calls]
    plugin(
        spec(layouts=frozenset({"middle"}), **MIDDLE),
        spec(name="dense", op="dense", load="xent.backends.generic:dense", layouts=frozenset({"last"})),
    )

    for call, other in zip(calls, expected, strict=True):
        np.testing.assert_allclose(call(), other, rtol=1e-6)


def test_a_kernel_that_wants_everything_gets_rows_of_any_rank_at_once(plugin):
    plugin(spec(**MIDDLE))
    toy_kernels.middle.seen.clear()
    xent.sparse_cross_entropy(np.zeros((3, 4, 5), "f4"), np.zeros((3, 4), int))

    assert toy_kernels.middle.seen == [(12, 5)]


def test_a_plain_call_of_a_plugins_kernel_is_as_quiet_as_any_other(plugin):
    methods = frozenset({"partial", "loss_and_gradient"})
    plugin(spec(load="toy_kernels:whole", methods=methods, priority=500))
    masked = np.full((3, 5), -np.inf, np.float32)  # log1p(−1), of which NumPy would warn
    loss, _ = xent.value_and_grad(xent.sparse_cross_entropy)(masked, np.arange(3))

    assert np.isnan(loss).all()
