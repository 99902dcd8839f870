"""Plugins: found, loaded one by one, each in isolation, listed and blocked."""

import asyncio
import json
import os
import pathlib
import pickle
import signal
import subprocess
import sys
import textwrap
import warnings

import numpy as np
import pytest
from toy_kernels import Plugin, logits, spec

import xent
from xent.contract import hooks as hookspecs
from xent.dispatch.registry import registry
from xent.errors import Interrupted

GOOD = """
import xent
@xent.hookimpl
def xent_register_kernels():
    methods = frozenset({"partial", "gradient"})
    yield xent.KernelSpec(name="good", op="sparse", load="xent.backends.generic:sparse", methods=methods)
"""
BROKEN = {
    "import-error": "raise ImportError('libnothing.so is missing')",
    "missing-attribute": "",
    "no-hooks": "def xent_register_kernels():\n    return []",
    "typo-in-hook": "import xent\n@xent.hookimpl\ndef xent_register_kernls():\n    return []",
    "unknown-argument": "import xent\n@xent.hookimpl\ndef xent_register_kernels(api, mood):\n    return []",
    "future-api": GOOD.replace('name="good"', 'name="late", api=99'),
    "half": GOOD.replace('"good"', '"half"') + "    raise RuntimeError('only half')\n",
    "duplicate": GOOD,
    "not-a-spec": "import xent\n@xent.hookimpl\ndef xent_register_kernels():\n    return ['a string']",
    "bare-name": GOOD.replace('name="good"', 'name="bare", arrays="numpy"'),
    "system-exit": "raise SystemExit(3)",
    "cancelled": "import asyncio\nraise asyncio.CancelledError",
    "generator-exit": "raise GeneratorExit",
    "skipped": "import pytest\npytest.skip(allow_module_level=True)",
    "mute": "class Mute(Exception):\n    def __str__(self):\n        raise SystemExit(4)\nraise Mute",
    "exits-in-hook": GOOD + "    raise SystemExit(5)\n",
}
KERNEL = """
import xent
from xent.backends import generic
{code}
@xent.hookimpl
def xent_register_kernels():
    return [xent.KernelSpec({facts})]
"""
CHECK = "def check(problem):\n    raise KeyError('surprise')"
FAILING = """
class Kernel:
    def partial(self, *arguments, threads):
        raise ArithmeticError("the kernel broke")
kernel = Kernel()
"""
LOOPBACK = """
class Kernel:
    calls = 0
    def partial(self, *arguments, threads):
        self.calls += 1
        return generic.sparse.partial(*arguments, threads=threads)
kernel = Kernel()
"""
ANY = 'arrays={"*"}, devices={"*"}, dtypes={"*"}'
SPARSE, DENSE = (f'op="{op}", load="xent.backends.generic:{op}"' for op in ("sparse", "dense"))
LOADED = {
    "nothing-here": "import xent\n@xent.hookimpl\ndef xent_register_kernels():\n    return None",
    "calls-xent": "import xent\nxent.plugins()\n" + GOOD.replace('"good"', '"calls", priority=-2'),
    "check-raises": KERNEL.format(code=CHECK, facts=f'name="curious", {SPARSE}, priority=50, check=check'),
    "kernel-raises": KERNEL.format(
        code=FAILING,
        facts='name="failing", op="sparse", load="kernel_raises_module:kernel", dtypes={"float64"}, priority=9',
    ),
    "tied-one": KERNEL.format(code="", facts=f'name="tied-b", {DENSE}'),
    "tied-two": KERNEL.format(code="", facts=f'name="tied-a", {DENSE}'),
    "loopback": KERNEL.format(
        code=LOOPBACK, facts=f'name="loopback", op="sparse", load="loopback_module:kernel", {ANY}, priority=-1'
    ),
}
TWIN = "z-twin:a-good"  # the entry point a-good of another distribution
INTRUDER = "intruder:xent.numpy"  # an entry point that bears one of xent's own names, and is broken
LISTED_AS_BROKEN = {*BROKEN, INTRUDER}
CALL = """
import json, warnings
import numpy as np
import loopback_module
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    import xent
    x, y = np.zeros((3, 4), "float32"), np.arange(3)
    found = {"loss": [float(xent.sparse_cross_entropy(x, y)[0]) for _ in range(2)]}
    found["kernel"] = xent.explain(xent.sparse_cross_entropy, x, y).kernel
    found["dense"] = float(xent.cross_entropy(x, x + 1)[0])
    found["half"] = float(xent.sparse_cross_entropy(x.astype("float16"), y)[0]), loopback_module.kernel.calls
    try:
        found["double"] = float(xent.sparse_cross_entropy(x.astype("float64"), y)[0])
    except ArithmeticError as error:
        found["notes"] = error.__notes__
    found["records"] = [one.to_dict() for one in xent.plugins()]
found["warnings"] = [str(one.message) for one in caught]
print(json.dumps(found))
"""


def install(folder, plugins, entry=None):
    """Writes each plugin as a distribution of its own, with its entry point."""
    for name, code in plugins.items():
        module = name.replace("-", "_") + "_module"
        (folder / f"{module}.py").write_text(textwrap.dedent(code))
        info = folder / f"{name.replace('-', '_')}-1.5.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.5\n")
        attribute = ":no_such_name" if name == "missing-attribute" else ""
        (info / "entry_points.txt").write_text(f"[xent]\n{entry or name} = {module}{attribute}\n")


def output_with(folder, *command, **environment):
    """What a fresh process that finds the distributions of the folder prints."""
    path = os.pathsep.join([str(folder), *(one for one in sys.path if one)])
    variables = {**os.environ, "PYTHONPATH": path, **environment}
    done = subprocess.run(command, capture_output=True, text=True, env=variables, timeout=60)

    assert done.returncode == 0, done.stderr
    return done.stdout


def call_with(folder, **environment):
    """What some calls say in such a process."""
    return json.loads(output_with(folder, sys.executable, "-c", CALL, **environment))


def command_with(folder, *arguments):
    """What ``xent plugins`` prints in such a process."""
    return output_with(folder, pathlib.Path(sys.executable).with_name("xent"), "plugins", *arguments)


@pytest.fixture(scope="module")
def crowd(tmp_path_factory):
    """Good plugins among broken ones and others that only load, in a fresh process."""
    folder = tmp_path_factory.mktemp("plugins")
    install(folder, {"a-good": GOOD, **BROKEN, **LOADED})
    install(folder, {"z-twin": GOOD.replace('"good"', '"twin", priority=-3')}, entry="a-good")
    install(folder, {"intruder": GOOD}, entry="xent.numpy")
    return folder, call_with(folder)


def test_xent_works_on_among_broken_plugins(crowd):
    found = crowd[1]

    assert found["loss"] == [float(np.float32(np.log(4)))] * 2 and found["kernel"] == "good"


@pytest.mark.parametrize("name", [*BROKEN, INTRUDER, "check-raises", TWIN])
def test_a_plugin_that_is_not_sound_is_named_in_one_warning_with_its_distribution_and_the_way_out(crowd, name):
    about = [text for text in crowd[1]["warnings"] if f"plugin {name!r}" in text]

    assert len(about) == 1 and f"({name.partition(':')[0]} 1.5)" in about[0] and f"XENT_DISABLE={name}" in about[0]


@pytest.mark.parametrize("name", [*BROKEN, INTRUDER, "check-raises"])
def test_a_broken_plugin_is_listed_with_its_traceback_and_registers_nothing(crowd, name):
    (record,) = [one for one in crowd[1]["records"] if one["name"] == name]

    assert record["status"] == "broken" and "Traceback" in record["error"] and record["kernels"] == []


@pytest.mark.parametrize(
    ("name", "kernels"),
    [
        ("a-good", ["good (sparse)"]),
        (TWIN, ["twin (sparse)"]),
        ("nothing-here", []),
        ("calls-xent", ["calls (sparse)"]),
    ],
)
def test_a_good_plugin_is_listed_with_its_distribution_kernels_and_hooks(crowd, name, kernels):
    (record,) = [one for one in crowd[1]["records"] if one["name"] == name]
    facts = (record["distribution"], record["version"], record["status"], record["kernels"], record["hooks"])

    assert facts == (name.partition(":")[0], "1.5", "active", kernels, ["xent_register_kernels"])


def test_only_what_is_not_sound_is_warned_of(crowd):
    assert len(crowd[1]["warnings"]) == len([*LISTED_AS_BROKEN, "check-raises", TWIN, "the tie"])


def test_a_tie_is_told_once_with_both_plugins_and_what_settles_it(crowd):
    about = [text for text in crowd[1]["warnings"] if "have the same priority" in text]

    assert len(about) == 1 and "XENT_PREFER=tied-a or XENT_PREFER=tied-b" in about[0]
    for kernel, name in (("tied-a", "tied-two"), ("tied-b", "tied-one")):
        assert f"'{kernel}' of plugin '{name}' ({name} 1.5)" in about[0]


def test_a_kernel_that_takes_everything_computes_what_no_other_plugin_takes(crowd):
    assert crowd[1]["half"] == [float(np.float32(np.log(4))), 1]


def test_an_error_of_a_kernel_names_its_plugin_and_a_way_out_that_works(crowd):
    folder, found = crowd
    (note,) = found["notes"]

    assert "kernel 'failing' of plugin 'kernel-raises' (kernel-raises 1.5)" in note and "XENT_DISABLE=failing" in note
    assert call_with(folder, XENT_DISABLE="failing")["double"] == np.log(4)


def test_the_command_lists_every_plugin_with_what_is_known_of_it(crowd):
    found = json.loads(command_with(crowd[0], "--json"))
    fields = {"name", "distribution", "version", "status", "kernels", "hooks", "error"}

    assert all(fields <= set(one) for one in found)
    assert {one["name"] for one in found} >= {"a-good", TWIN, *BROKEN, *LOADED}
    assert {one["name"] for one in found if one["status"] == "broken"} == LISTED_AS_BROKEN


def test_the_command_shows_the_traceback_of_every_broken_plugin(crowd):
    shown = [line.strip() for line in command_with(crowd[0]).splitlines()]
    last = [one["error"].splitlines()[-1] for one in crowd[1]["records"] if one["name"] in LISTED_AS_BROKEN]

    assert len(last) == len(LISTED_AS_BROKEN) and set(last) <= set(shown)


def test_a_disabled_plugin_is_not_even_imported(crowd):
    unsound = [*LISTED_AS_BROKEN, "check-raises", TWIN, "tied-one"]
    found = call_with(crowd[0], XENT_DISABLE=",".join(unsound))
    statuses = {one["name"]: one["status"] for one in found["records"]}

    assert found["warnings"] == [] and {statuses[name] for name in unsound} == {"blocked"}


def test_disabling_a_name_disables_it_in_every_distribution(crowd):
    found = call_with(crowd[0], XENT_DISABLE="a-good")

    assert {one["status"] for one in found["records"] if "a-good" in one["name"]} == {"blocked"}


@pytest.mark.parametrize(
    ("wanted", "kernel"), [("none", "numpy"), ("a-good", "good"), ("half", "numpy"), (TWIN, "twin")]
)
def test_the_environment_says_which_plugins_are_loaded(crowd, wanted, kernel):
    assert call_with(crowd[0], XENT_PLUGINS=wanted)["kernel"] == kernel


def test_plugin_errors_can_be_made_to_raise_and_do_so_at_every_call(crowd):
    code = """
import xent
for _ in range(2):
    try:
        xent.plugins()
    except ValueError as error:
        print(error)
"""
    rule = 'must be a frozenset of root modules such as "numpy" and "torch", or "*"'
    message = f"kernel 'bare': `arrays` {rule}, got 'numpy'. See xent.KernelSpec.\n"

    assert output_with(crowd[0], sys.executable, "-c", code, XENT_PLUGIN_ERRORS="raise") == message * 2


def test_a_check_that_breaks_sets_its_plugin_aside_and_the_call_goes_on():
    def check(problem):
        raise KeyError("surprise")

    xent.register(Plugin(spec(check=check)), "fragile")
    x, y = logits()
    with pytest.warns(xent.PluginWarning, match=r"plugin 'fragile' .* is set aside: KeyError"):
        loss = xent.sparse_cross_entropy(x, y)
    record = registry.records.pop("fragile")

    assert loss.shape == (7,) and record.status == "broken"


def test_a_check_that_answers_neither_true_nor_a_reason_sets_its_plugin_aside():
    xent.register(Plugin(spec(check=lambda problem: False)), "vague")
    with pytest.warns(xent.PluginWarning, match="must return True or a reason, got False"):
        xent.explain(xent.sparse_cross_entropy, *logits())

    assert registry.records.pop("vague").status == "broken"


def test_a_guard_that_breaks_sets_its_plugin_aside_and_the_call_goes_on():
    def guard(shape, strides):
        raise KeyError("surprise")

    xent.register(Plugin(spec(guard=guard)), "fragile")
    with pytest.warns(xent.PluginWarning, match="plugin 'fragile'"):
        loss = xent.sparse_cross_entropy(*logits())

    assert loss.shape == (7,) and registry.records.pop("fragile").status == "broken"


class Mute(BaseException):
    def __str__(self):
        raise KeyError("surprise")


class Asking:
    """A plugin one of whose parts asks what it is told to: its hook of kernels, a kernel's check or guard, a policy."""

    def __init__(self, part, ask):
        self.part, self.ask = part, ask

    def answer(self, *facts):
        self.ask()
        return True

    @xent.hookimpl
    def xent_register_kernels(self):
        yield spec(name="asking", priority=1, **{self.part: self.answer} if self.part in ("check", "guard") else {})
        if self.part == "hook":
            self.ask()

    @xent.hookimpl
    def xent_order_kernels(self, candidates):
        if self.part == "policy":
            self.ask()


every_part = pytest.mark.parametrize("part", ["hook", "check", "guard", "policy"])


@pytest.fixture
def losses_beside():
    """What two calls give beside a plugin, and what is warned of; "toy" is registered too."""
    xent.register(Plugin(spec()), "toy")

    def losses(plugin):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            xent.register(plugin, "asking")
            losses = [xent.sparse_cross_entropy(*logits()) for _ in range(2)]
        return losses, [str(one.message) for one in caught]

    yield losses
    xent.unregister("toy")
    registry.manager.has_plugin("asking") and xent.unregister("asking")
    registry.records.pop("asking", None)


@pytest.mark.parametrize(
    "error",
    [SystemExit(3), asyncio.CancelledError(), GeneratorExit(), pytest.skip.Exception("not here"), Mute()],
    ids=lambda error: type(error).__name__,
)
@every_part
def test_whatever_a_plugin_raises_it_is_named_once_and_the_call_goes_on(part, error, losses_beside):
    def ask():
        raise error

    losses, warned = losses_beside(Asking(part, ask))

    assert [loss.shape for loss in losses] == [(7,)] * 2
    assert registry.records["asking"].status == "broken"
    assert len(warned) == 1 and f"'asking' (no distribution) is set aside: {type(error).__name__}" in warned[0]


@pytest.mark.parametrize("part", ["check", "guard", "policy"])
def test_what_is_asked_again_by_its_own_call_of_xent_is_named_once_and_the_call_goes_on(part, losses_beside):
    losses, warned = losses_beside(Asking(part, lambda: xent.sparse_cross_entropy(*logits())))

    assert [loss.shape for loss in losses] == [(7,)] * 2
    assert registry.records["asking"].status == "broken"
    assert len(warned) == 1 and "'asking' (no distribution) is set aside: RecursionError" in warned[0]


def test_a_policy_may_try_kernels_by_force(losses_beside):
    def ask():
        for kernel in ("numpy", "generic"):
            with xent.using(kernel=kernel):
                xent.sparse_cross_entropy(*logits())

    _, warned = losses_beside(Asking("policy", ask))

    assert (warned, registry.records["asking"].status) == ([], "active")


def stopped(number, frame):
    sys.exit(3)


@pytest.mark.parametrize(("number", "error"), [(signal.SIGINT, KeyboardInterrupt), (signal.SIGUSR1, SystemExit)])
@every_part
def test_a_signal_is_no_fault_of_the_plugin_whose_code_it_meets(part, number, error, losses_beside):
    signals = [number]
    plugin = Asking(part, lambda: signals and signal.raise_signal(signals.pop()))
    before = signal.signal(signal.SIGUSR1, stopped)
    try:
        with pytest.raises(error):
            losses_beside(plugin)
    finally:
        signal.signal(signal.SIGUSR1, before)
    losses, warned = losses_beside(plugin)

    assert [loss.shape for loss in losses] == [(7,)] * 2
    assert (warned, registry.records["asking"].status) == ([], "active")


LOADING = """
import json, threading, warnings
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    import numpy as np, xent
    from xent.dispatch import registry
    registry.PATIENCE_SECONDS = 0.05
    x, y = np.zeros((3, 4), "float32"), np.arange(3)
    found = []
    for _ in range(3):
        try:
            found.append(float(xent.sparse_cross_entropy(x, y)[0]))
        except KeyboardInterrupt:
            found.append("interrupted")
    statuses = {one.name: one.status for one in xent.plugins() if one.distribution != "xent"}
    kernel = xent.explain(xent.sparse_cross_entropy, x, y).kernel
print(json.dumps([found, statuses, kernel, [str(one.message) for one in caught]]))
"""
WAITS = """
import threading, numpy as np, xent
def call():
    xent.sparse_cross_entropy(np.zeros((3, 4), "float32"), np.arange(3))
    xent.cross_entropy(np.zeros((3, 4), "float32"), np.ones((3, 4), "float32"))
thread = threading.Thread(target=call)
thread.start()
thread.join()
"""
INTERRUPTED = """
import signal, xent
if not hasattr(xent, "was_here"):
    xent.was_here = True
    signal.raise_signal(signal.SIGINT)
"""
LOSS = float(np.float32(np.log(4)))


def test_an_import_that_waits_for_a_thread_which_calls_xent_ends_and_is_named(tmp_path):
    install(tmp_path, {"waits": WAITS + GOOD})
    found, statuses, kernel, warned = json.loads(output_with(tmp_path, sys.executable, "-c", LOADING))

    assert (found, statuses, kernel) == ([LOSS] * 3, {"waits": "active"}, "good")
    assert len(warned) == 1 and "plugin 'waits' (waits 1.5) has not been loaded in 0.05 s" in warned[0]


def test_an_interrupt_while_plugins_are_loaded_sets_none_aside(tmp_path):
    install(tmp_path, {"a-broken": "raise ImportError('once')", "interrupted": INTERRUPTED + GOOD})
    found, statuses, kernel, warned = json.loads(output_with(tmp_path, sys.executable, "-c", LOADING))

    assert (found, kernel) == (["interrupted", LOSS, LOSS], "good")
    assert statuses == {"a-broken": "broken", "interrupted": "active"} and len(warned) == 1


def test_registering_and_unregistering_leaves_no_trace():
    before = xent.plugins(), list(registry.kernels)
    xent.register(Plugin(spec()), "passing")
    xent.unregister("passing")

    assert (xent.plugins(), registry.kernels) == before


def test_unregistering_a_stranger_raises():
    with pytest.raises(ValueError, match="`name` must be that of an active plugin, got 'nobody'"):
        xent.unregister("nobody")


def test_every_kernel_of_xents_own_comes_by_the_hook():
    assert {one.owner for one in registry.kernels} == {"xent.generic", "xent.numpy"}


def test_every_hook_is_documented_and_exercised_by_a_test():
    hooks = [name for name in vars(hookspecs) if name.startswith("xent_")]
    here = pathlib.Path(__file__).parent
    tests = "".join((here / name).read_text() for name in ("test_registry.py", "test_selection.py"))
    undocumented = [name for name in hooks if not getattr(hookspecs, name).__doc__]
    unexercised = [name for name in hooks if f"def {name}" not in tests]

    assert (undocumented, unexercised) == ([], ["xent_conformance"])  # which the conformance kit will call


def test_records_survive_pickling():
    assert pickle.loads(pickle.dumps(xent.plugins())) == xent.plugins()


def test_registering_a_name_again_takes_the_old_plugin_out_first():
    xent.register(Plugin(spec()), "again")
    xent.register(Plugin(spec(name="newer")), "again")
    (record,) = [one for one in xent.plugins() if one.name == "again"]
    xent.unregister("again")

    assert (record.status, record.kernels) == ("active", ("newer (sparse)",))


def test_what_is_xents_own_is_not_unregistered():
    with pytest.raises(ValueError, match=r"`name` must be that of an active plugin, got 'xent\.generic'"):
        xent.unregister("xent.generic")


def test_a_kernel_for_an_op_that_is_none_is_not_registered():
    with pytest.warns(xent.PluginWarning, match='`op` must be "sparse" or "dense", got \'weird\''):
        xent.register(Plugin(spec(op="weird")), "odd")

    assert registry.records.pop("odd").status == "broken"


def test_a_context_that_an_interrupt_left_is_no_fault_of_a_plugin():
    asked = registry.asked("xent.numpy", "check")
    asked.gen.send(None)  # as contextlib does; an interrupt may come before the with statement has its value
    asked.gen.close()

    assert registry.records["xent.numpy"].status == "active"
    assert not registry.asking.__dict__["active"]


def test_an_interrupt_of_the_command_line_is_no_fault_of_a_plugin():
    with pytest.raises(Interrupted), registry.asked("xent.numpy", "check"):
        raise Interrupted

    assert registry.records["xent.numpy"].status == "active"
