"""Every path that users and plugins import from, wherever the definitions are."""

import importlib
import importlib.util
import subprocess
import sys

import pytest

import xent

MOVED = {
    "xent.kernels": {
        **dict.fromkeys(("API_VERSION", "BackendSpec", "KernelSpec"), "xent.contract.specs"),
        **dict.fromkeys(("Decision", "Plan", "Verdict"), "xent.contract.plan"),
        **dict.fromkeys(("Options", "Problem", "Weights"), "xent.contract.problem"),
        **dict.fromkeys(("register_target", "why_no_targets"), "xent.contract.ffi_targets"),
        "Partial": "xent.numerics.fold",
        "ProbabilitySums": "xent.numerics.probabilities",
        "Statistics": "xent.numerics.statistics",
    },
    "xent.hookspecs": {
        **dict.fromkeys(("hookimpl", "hookspec", "xent_conformance", "xent_order_kernels"), "xent.contract.hooks"),
        **dict.fromkeys(("xent_register_backends", "xent_register_kernels"), "xent.contract.hooks"),
        "API_VERSION": "xent.contract.specs",
    },
    "xent.evaluation.sources": {
        "ReadError": "xent.evaluation.sources.messages",
        "Source": "xent.evaluation.sources.source",
        "TopK": "xent.evaluation.sources.topk",
        "open_source": "xent.evaluation.sources.opening",
    },
    "xent.evaluation.state": {"merge": "xent.evaluation.statistics.state"},
    "xent.cli": {"main": "xent.cli.program"},
    "xent.backends.generic": dict.fromkeys(("dense", "run", "sparse"), "xent.backends.generic.schedule"),
}
BACKENDS = ("generic", "numpy", "torch", "jax", "dask", "cupy")
COMPAT = ("dask_ml", "keras", "optax", "sklearn", "tensorflow", "torch")


@pytest.mark.parametrize(
    ("path", "name", "home"), [(path, name, home) for path, names in MOVED.items() for name, home in names.items()]
)
def test_a_public_path_has_the_object_itself(path, name, home):
    assert getattr(importlib.import_module(path), name) is getattr(importlib.import_module(home), name)


@pytest.mark.parametrize("path", [path for path in MOVED if path != "xent.backends.generic"])
def test_a_public_path_names_what_it_has(path):
    assert sorted(importlib.import_module(path).__all__) == sorted(MOVED[path])


@pytest.mark.parametrize("name", BACKENDS)
def test_a_backend_registers_itself_under_its_own_name(name):
    xent.plugins()
    module = importlib.import_module(f"xent.backends.{name}")

    assert any(hook.startswith("xent_register_") for hook in vars(module))
    assert importlib.import_module("xent.dispatch.registry").registry.manager.get_plugin(f"xent.{name}") is module


@pytest.mark.parametrize("name", xent.__all__)
def test_every_public_name_is_there(name):
    assert getattr(xent, name) is not None


@pytest.mark.parametrize("name", COMPAT)
def test_every_peer_has_its_module(name):
    assert importlib.util.find_spec(f"xent.compat.{name}") is not None


@pytest.mark.parametrize("name", COMPAT)
def test_completion_of_a_peers_module_shows_its_public_names_alone(name):
    module = getattr(importlib.import_module("xent.compat"), name)

    assert dir(module) == sorted(module.__all__) and name in dir(importlib.import_module("xent.compat"))
    for public in module.__all__:
        assert getattr(module, public) is not None
    with pytest.raises(AttributeError, match="no_such_loss"):
        module.no_such_loss


def test_the_command_is_a_module_too():
    result = subprocess.run([sys.executable, "-m", "xent", "--help"], capture_output=True, text=True, timeout=60)

    assert result.returncode == 0 and result.stdout.startswith("Usage: xent")
