"""Plugins: found, loaded one by one, each in isolation, listed and blocked."""

import json
import os
import pathlib
import pickle
import subprocess
import sys
import textwrap

import numpy as np
import pytest
from toy_kernels import Plugin, logits, spec

import xent
from xent import hookspecs
from xent.registry import registry

GOOD = """
import xent
@xent.hookimpl
def xent_register_kernels():
    methods = frozenset({"partial", "gradient"})
    yield xent.KernelSpec(name="good", op="sparse", load="xent.backends.generic:sparse", methods=methods)
"""
BROKEN = {
    "import-error": "raise ImportError('libnothing.so is missing')",
    "typo-in-hook": "import xent\n@xent.hookimpl\ndef xent_register_kernls():\n    return []",
    "unknown-argument": "import xent\n@xent.hookimpl\ndef xent_register_kernels(api, mood):\n    return []",
    "future-api": GOOD.replace('name="good"', 'name="late", api=99'),
    "half": GOOD.replace('"good"', '"half"') + "    raise RuntimeError('only half')\n",
    "duplicate": GOOD,
    "not-a-spec": "import xent\n@xent.hookimpl\ndef xent_register_kernels():\n    return ['a string']",
    "system-exit": "raise SystemExit(3)",
}
CALL = """
import json, warnings
import numpy as np
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    import xent
    x = np.zeros((3, 4), "float32")
    loss = [float(xent.sparse_cross_entropy(x, np.arange(3))[0]) for _ in range(2)]
    records = [one.to_dict() for one in xent.plugins()]
found = {"loss": loss, "records": records, "warnings": [str(one.message) for one in caught]}
found["kernel"] = xent.explain(xent.sparse_cross_entropy, x, np.arange(3)).kernel
print(json.dumps(found))
"""


def install(folder, plugins):
    """Writes each plugin as a distribution of its own, with its entry point."""
    for name, code in plugins.items():
        module = name.replace("-", "_") + "_module"
        (folder / f"{module}.py").write_text(textwrap.dedent(code))
        info = folder / f"{name.replace('-', '_')}-1.5.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.5\n")
        (info / "entry_points.txt").write_text(f"[xent]\n{name} = {module}\n")


def call_with(folder, **environment):
    """What a fresh process that finds the distributions of the folder says."""
    path = os.pathsep.join([str(folder), *(one for one in sys.path if one)])
    variables = {**os.environ, "PYTHONPATH": path, **environment}
    done = subprocess.run([sys.executable, "-c", CALL], capture_output=True, text=True, env=variables, timeout=60)

    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def crowd(tmp_path_factory):
    """One good plugin among the broken ones, in a fresh process."""
    folder = tmp_path_factory.mktemp("plugins")
    install(folder, {"a-good": GOOD, **BROKEN})
    return folder, call_with(folder)


def test_xent_works_on_among_broken_plugins(crowd):
    found = crowd[1]

    assert found["loss"] == [float(np.float32(np.log(4)))] * 2 and found["kernel"] == "good"


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_plugin_is_named_in_one_warning_with_its_distribution_and_the_way_out(crowd, name):
    about = [text for text in crowd[1]["warnings"] if f"plugin {name!r}" in text]

    assert len(about) == 1 and f"({name} 1.5)" in about[0] and f"XENT_DISABLE={name}" in about[0]


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_plugin_is_listed_with_its_traceback_and_registers_nothing(crowd, name):
    (record,) = [one for one in crowd[1]["records"] if one["name"] == name]

    assert record["status"] == "broken" and "Traceback" in record["error"] and record["kernels"] == []


def test_a_good_plugin_is_listed_with_its_distribution_kernels_and_hooks(crowd):
    (record,) = [one for one in crowd[1]["records"] if one["name"] == "a-good"]
    facts = (record["distribution"], record["version"], record["status"], record["kernels"], record["hooks"])

    assert facts == ("a-good", "1.5", "active", ["good (sparse)"], ["xent_register_kernels"])


def test_a_disabled_plugin_is_not_even_imported(crowd):
    found = call_with(crowd[0], XENT_DISABLE=",".join(BROKEN))
    statuses = {one["name"]: one["status"] for one in found["records"]}

    assert found["warnings"] == [] and {statuses[name] for name in BROKEN} == {"blocked"}


@pytest.mark.parametrize(("wanted", "kernel"), [("none", "numpy"), ("a-good", "good"), ("half", "numpy")])
def test_the_environment_says_which_plugins_are_loaded(crowd, wanted, kernel):
    assert call_with(crowd[0], XENT_PLUGINS=wanted)["kernel"] == kernel


def test_plugin_errors_can_be_made_to_raise(crowd):
    with pytest.raises(AssertionError, match="is there already, from a-good"):
        call_with(crowd[0], XENT_PLUGIN_ERRORS="raise")


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
    with pytest.warns(xent.PluginWarning, match="which is neither sparse nor dense"):
        xent.register(Plugin(spec(op="weird")), "odd")

    assert registry.records.pop("odd").status == "broken"
