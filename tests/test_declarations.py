"""What a plugin may declare: every field that means nothing is refused when it is registered, and named."""

import dataclasses

import pytest

import xent
from xent.contract.specs import BackendSpec, KernelSpec
from xent.dispatch import declarations
from xent.dispatch.registry import registry

KERNEL = {"name": "k", "op": "sparse", "load": "package.module:name"}
BACKEND = {"name": "b", "load": "package.module:name", "arrays": frozenset({"mine"})}
ANY_OF = '"loss", "loss_and_partial", "gradient", "loss_and_gradient", "statistics", "probability_sums" or "whole_call"'
ARRAYS = 'must be a frozenset of root modules such as "numpy" and "torch", or "*"'
DEVICES = 'must be a frozenset of kinds of device such as "cpu" and "cuda", or "*"'
DTYPES = 'must be a frozenset of any of "bfloat16", "float16", "float32", "float64" or "*"'
CASES = [
    (KernelSpec, {"name": ""}, "kernel '': `name` must be a name, got ''"),
    (KernelSpec, {"name": 7}, "kernel 7: `name` must be a name, got 7"),
    (KernelSpec, {"op": "binary"}, "kernel 'k': `op` must be \"sparse\" or \"dense\", got 'binary'"),
    (
        KernelSpec,
        {"load": "package.module"},
        "kernel 'k': `load` must be \"package.module:name\", got 'package.module'",
    ),
    (KernelSpec, {"load": print}, f"kernel 'k': `load` must be \"package.module:name\", got {print!r}"),
    (KernelSpec, {"api": 99}, "kernel 'k': `api` must be 1, got 99"),
    (KernelSpec, {"api": 0}, "kernel 'k': `api` must be 1, got 0"),
    (
        KernelSpec,
        {"arrays": "numpy"},
        f"kernel 'k': `arrays` {ARRAYS}, got 'numpy'",
    ),
    (
        KernelSpec,
        {"arrays": frozenset()},
        f"kernel 'k': `arrays` {ARRAYS}, got frozenset()",
    ),
    (
        KernelSpec,
        {"devices": "cpu"},
        f"kernel 'k': `devices` {DEVICES}, got 'cpu'",
    ),
    (
        KernelSpec,
        {"dtypes": [32]},
        f"kernel 'k': `dtypes` {DTYPES}, got [32]",
    ),
    (
        KernelSpec,
        {"arrays": {"np"}},
        f"kernel 'k': `arrays` {ARRAYS}, got frozenset({{'np'}})",
    ),
    (
        KernelSpec,
        {"arrays": {"torch.Tensor"}},
        f"kernel 'k': `arrays` {ARRAYS}, got frozenset({{'torch.Tensor'}})",
    ),
    (
        KernelSpec,
        {"devices": {"cuda:0"}},
        f"kernel 'k': `devices` {DEVICES}, got frozenset({{'cuda:0'}})",
    ),
    (
        KernelSpec,
        {"devices": {"CPU"}},
        f"kernel 'k': `devices` {DEVICES}, got frozenset({{'CPU'}})",
    ),
    (
        KernelSpec,
        {"dtypes": {"f32"}},
        f"kernel 'k': `dtypes` {DTYPES}, got frozenset({{'f32'}})",
    ),
    (
        KernelSpec,
        {"dtypes": {"int8"}},
        f"kernel 'k': `dtypes` {DTYPES}, got frozenset({{'int8'}})",
    ),
    (
        KernelSpec,
        {"dtypes": None},
        f"kernel 'k': `dtypes` {DTYPES}, got None",
    ),
    (
        KernelSpec,
        {"layouts": "last"},
        "kernel 'k': `layouts` must be a frozenset of \"last\" and \"middle\", got 'last'",
    ),
    (
        KernelSpec,
        {"layouts": {"first"}},
        "kernel 'k': `layouts` must be a frozenset of \"last\" and \"middle\", got frozenset({'first'})",
    ),
    (
        KernelSpec,
        {"methods": {"loss"}},
        f'kernel \'k\': `methods` must be a frozenset of "partial" and any of {ANY_OF}, or of "ffi_target" and any '
        'of "partial" or "statistics", got frozenset({\'loss\'})',
    ),
    (KernelSpec, {"priority": "high"}, "kernel 'k': `priority` must be an int, got 'high'"),
    (KernelSpec, {"opt_in": "no"}, "kernel 'k': `opt_in` must be True or False, got 'no'"),
    (KernelSpec, {"deterministic": None}, "kernel 'k': `deterministic` must be True or False, got None"),
    (KernelSpec, {"contiguous": 1.5}, "kernel 'k': `contiguous` must be True or False, got 1.5"),
    (KernelSpec, {"in_place": "yes"}, "kernel 'k': `in_place` must be True or False, got 'yes'"),
    (KernelSpec, {"block_elements": 0}, "kernel 'k': `block_elements` must be an int ≥ 1 or None, got 0"),
    (KernelSpec, {"check": True}, "kernel 'k': `check` must be a function or None, got True"),
    (KernelSpec, {"guard": "small"}, "kernel 'k': `guard` must be a function or None, got 'small'"),
    (
        BackendSpec,
        {"arrays": "mine"},
        f"backend 'b': `arrays` {ARRAYS}, got 'mine'",
    ),
    (BackendSpec, {"inner": "parts"}, 'backend \'b\': `inner` must be "", "chunks" or "view", got \'parts\''),
    (BackendSpec, {"takes_out": 1}, "backend 'b': `takes_out` must be True or False, got 1"),
    (BackendSpec, {"views": "numpy"}, "backend 'b': `views` must be a tuple of names, got 'numpy'"),
    (BackendSpec, {"inner": "chunks"}, "backend 'b': `views` must be given where `inner` is \"chunks\", got ()"),
    (BackendSpec, {"inner": "view"}, "backend 'b': `views` must be given where `inner` is \"view\", got ()"),
    (
        BackendSpec,
        {"inner": "view", "views": ("mine",)},
        "backend 'b': `views` must be libraries other than those of `arrays`, got ('mine',)",
    ),
]


@pytest.mark.parametrize(("kind", "facts", "message"), CASES, ids=[message[:60] for *_, message in CASES])
def test_a_field_that_means_nothing_is_refused_with_its_name_and_value(kind, facts, message):
    spec = kind(**{**(KERNEL if kind is KernelSpec else BACKEND), **facts})
    with pytest.raises(ValueError) as caught:
        declarations.checked(spec, kind)

    assert str(caught.value) == f"{message}. See xent.{kind.__name__}."


def test_a_method_that_is_none_is_refused_beside_partial():
    with pytest.raises(ValueError, match=r"kernel 'k': `methods` must be .* got frozenset.*'grad'"):
        declarations.checked(KernelSpec(**KERNEL, methods={"partial", "grad"}), KernelSpec)


def test_a_kernel_of_ffi_targets_may_have_targets_for_two_more_methods_and_no_others():
    for methods in ({"ffi_target"}, {"ffi_target", "partial"}, {"ffi_target", "partial", "statistics"}):
        assert declarations.checked(KernelSpec(**KERNEL, methods=methods), KernelSpec).methods == methods
    for methods in ({"ffi_target", "gradient"}, {"ffi_target", "partial", "loss"}):
        with pytest.raises(ValueError, match=r"kernel 'k': `methods` must be .* or of \"ffi_target\" and any of"):
            declarations.checked(KernelSpec(**KERNEL, methods=methods), KernelSpec)


def test_every_field_has_its_rule_and_every_rule_its_case():
    fields = {field.name for kind in (KernelSpec, BackendSpec) for field in dataclasses.fields(kind)} - {"owner"}
    tried = {field for _, facts, _ in CASES for field in facts}

    assert fields == set(declarations.RULES) == tried


def test_a_declaration_of_another_kind_is_refused():
    with pytest.raises(TypeError, match=r"expected a KernelSpec, got xent\.BackendSpec"):
        declarations.checked(BackendSpec(**BACKEND), KernelSpec)


@pytest.mark.parametrize("kind", [set, list, tuple])
def test_names_may_come_in_a_set_a_list_or_a_tuple(kind):
    found = declarations.checked(KernelSpec(**KERNEL, arrays=kind(["cupy", "numpy"])), KernelSpec)

    assert found == KernelSpec(**KERNEL, arrays=frozenset({"cupy", "numpy"}))


@pytest.mark.parametrize("library", ["dask", "torch"])
def test_a_backend_for_arrays_that_xent_looks_into_need_not_say_what_is_in_them(library):
    spec = BackendSpec(name="b", load="package.module:name", arrays=frozenset({library}), inner="chunks")

    assert declarations.checked(spec, BackendSpec) == spec


def test_a_plugin_of_a_declaration_that_means_nothing_is_set_aside_with_the_message():
    class Plugin:
        @xent.hookimpl
        def xent_register_kernels(self):
            return [KernelSpec(**KERNEL, arrays="numpy")]

    with pytest.warns(
        xent.PluginWarning, match="plugin 'odd' .* `arrays` must be a frozenset of root modules .*, got 'numpy'"
    ):
        xent.register(Plugin(), "odd")

    assert registry.records.pop("odd").status == "broken"
