"""The doctor: its diagnosis of an installation, and what makes one unsound."""

import dataclasses
import importlib.metadata
import itertools
import json
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from toy_kernels import Plugin, spec

import xent
from xent.cli import doctor
from xent.dispatch import settings
from xent.dispatch.registry import registry
from xent.testing import Failure, Report, Result

KEPT, NOT_RUN = Result("ties", 6), Result("infinities", 0, not_run="its methods take none")
BROKEN = Result("tiny_losses", 3, 2, (Failure("float32 on numpy", "the loss is 9 ulp off", snippet="kernel.loss()"),))
WITNESSES = ("numpy", "dense"), ("loopback", "sparse")
NOTHING = Result("selected", 0, 1, (Failure("what it declares", "nothing of it can be tried here"),))


@pytest.fixture
def reports(monkeypatch):
    """The reports of kernels by their names; a kernel that is not among them is sound."""
    reports = {}
    monkeypatch.setattr(
        "xent.testing.check_kernel", lambda spec, *, quick: reports.get(spec.name, Report(spec, (KEPT, NOT_RUN)))
    )
    monkeypatch.setattr(doctor, "DEVICES", {})
    return reports


@pytest.fixture
def plugin():
    """Registers a plugin of the given specs for one test."""
    yield lambda *specs: xent.register(Plugin(*specs), "toy")
    if registry.manager.has_plugin("toy"):
        xent.unregister("toy")
    registry.records.pop("toy", None)


def finding_of(diagnosis, kernel):
    return next(finding for finding in diagnosis.kernels if finding.kernel == kernel)


def lines_of(diagnosis, start):
    """The line that starts so, and those indented below it."""
    lines = str(diagnosis).splitlines()
    first = next(index for index, line in enumerate(lines) if line.startswith(start))
    below = itertools.takewhile(lambda line: line[:1] in ("", " "), lines[first + 1 :])
    return [lines[first], *filter(None, below)]


def test_xent_alone_is_sound(reports):
    diagnosis = doctor.diagnose()

    assert diagnosis.is_sound
    assert {(finding.kernel, finding.op) for finding in diagnosis.kernels} >= {
        ("numpy", "sparse"),
        ("generic", "dense"),
    }
    assert {finding.verdict for finding in diagnosis.kernels} == {"sound"}


def test_the_versions_are_those_of_the_distributions_and_what_is_not_installed_is_left_out(reports, monkeypatch):
    monkeypatch.setattr(doctor, "OPTIONAL", ("no-such-distribution",))
    versions = doctor.diagnose().versions

    assert versions["numpy"] == np.__version__ and versions["python"] == sys.version.split()[0]
    assert versions["pluggy"] == importlib.metadata.version("pluggy") and "no-such-distribution" not in versions


def test_the_variables_that_are_set_and_the_processors_are_listed(reports, monkeypatch):
    for name in settings.VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XENT_PREFER", "numba")
    diagnosis = doctor.diagnose()

    assert diagnosis.variables == {"XENT_PREFER": "numba"} and diagnosis.processors == settings.affinity()
    assert lines_of(diagnosis, "XENT_PREFER")[0].split() == ["XENT_PREFER", "numba"]


def test_a_kernels_line_has_its_plugin_the_time_of_its_import_and_the_number_of_cases(reports, plugin):
    plugin(spec())
    (line,) = lines_of(doctor.diagnose(), "loopback (sparse)")
    words = line.split()

    assert words[2:6] == ["toy", "no", "distribution", "imported"]
    assert float(words[7]) >= 0 and line.endswith("ms  sound, 6 cases")


def test_the_tests_are_the_quick_ones_of_the_kit(reports, plugin, monkeypatch):
    calls = []
    monkeypatch.setattr(
        "xent.testing.check_kernel", lambda spec, *, quick: calls.append((spec.name, quick)) or Report(spec, (KEPT,))
    )
    plugin(spec())
    doctor.diagnose()

    assert ("loopback", True) in calls and len(calls) == len(registry.kernels)


def test_a_wrong_kernel_makes_an_installation_unsound_and_says_what_is_wrong_below(reports, plugin):
    plugin(spec())
    reports["loopback"] = Report(spec(), (KEPT, BROKEN), ("cupy: there is no GPU",))
    diagnosis = doctor.diagnose()
    line, *below = lines_of(diagnosis, "loopback (sparse)")

    assert not diagnosis.is_sound and finding_of(diagnosis, "numpy").verdict == "sound"
    assert line.endswith("WRONG")
    assert below == ["    tiny_losses, 2 of 3 cases: float32 on numpy: the loss is 9 ulp off"]


def test_a_kernel_that_cannot_be_imported_makes_an_installation_unsound_and_says_why(reports, plugin):
    plugin(spec(load="no_such_module:kernel"))
    diagnosis = doctor.diagnose()
    line, *below = lines_of(diagnosis, "loopback (sparse)")

    assert not diagnosis.is_sound and line.endswith("cannot be imported")
    assert below == ["    ModuleNotFoundError: No module named 'no_such_module'"]


def test_a_kernel_that_cannot_run_here_says_why_and_is_no_fault(reports, plugin):
    plugin(spec())
    reports["loopback"] = Report(spec(), (NOTHING,), ("cupy: there is no GPU",))
    diagnosis = doctor.diagnose()
    line, *below = lines_of(diagnosis, "loopback (sparse)")

    assert diagnosis.is_sound and line.endswith("cannot run here") and below == ["    cupy: there is no GPU"]


def test_a_kernel_that_declares_nothing_is_wrong(reports, plugin):
    plugin(spec())
    reports["loopback"] = Report(spec(), (NOTHING,))

    assert finding_of(doctor.diagnose(), "loopback").verdict == "WRONG"


def test_a_broken_plugin_makes_an_installation_unsound_and_its_traceback_is_shown(reports, plugin):
    with pytest.warns(xent.PluginWarning, match="set aside"):
        plugin("not a spec")
    diagnosis = doctor.diagnose()
    line, *below = lines_of(diagnosis, "toy ")

    assert not diagnosis.is_sound and line.endswith("broken")
    assert below[0] == "    Traceback (most recent call last):" and "TypeError" in below[-1]


def test_a_plugin_that_a_test_has_set_aside_is_found_broken(reports, plugin, monkeypatch):
    def breaks(spec, *, quick):
        registry.quarantine("toy", RuntimeError("its check broke"))
        return Report(spec, (KEPT,))

    plugin(spec())
    monkeypatch.setattr("xent.testing.check_kernel", breaks)
    with pytest.warns(xent.PluginWarning, match="its check broke"):
        diagnosis = doctor.diagnose()

    assert not diagnosis.is_sound


def test_the_gpus_that_a_library_sees_are_named(reports, monkeypatch):
    monkeypatch.setattr(doctor, "DEVICES", {"numpy": lambda: ["H200", "H200"], "json": list})
    diagnosis = doctor.diagnose()

    assert diagnosis.gpus == {"numpy": "H200, H200", "json": "none"}
    assert lines_of(diagnosis, "GPUs of numpy")[0].endswith("H200, H200")


def test_a_driver_that_does_not_work_is_described_by_its_error(reports, monkeypatch):
    def broken():
        raise OSError("libcuda.so.1:\ncannot open shared object file")

    monkeypatch.setattr(doctor, "DEVICES", {"numpy": broken})
    diagnosis = doctor.diagnose()

    assert diagnosis.gpus == {"numpy": "OSError: libcuda.so.1: cannot open shared object file"} and diagnosis.is_sound


def test_a_library_that_is_not_installed_is_not_asked_for_gpus(reports, monkeypatch):
    monkeypatch.setattr(doctor, "DEVICES", {"no_such_library": lambda: pytest.fail("asked")})

    assert doctor.diagnose().gpus == {}


@pytest.mark.parametrize("library", ["cupy", "torch", "jax"])
def test_each_library_names_its_gpus_and_no_processor(library):
    pytest.importorskip(library, reason=f"{library} is not installed")
    names = doctor.DEVICES[library]()

    assert all(isinstance(name, str) and name != "cpu" for name in names)


def test_a_gpus_name_is_text_though_cuda_gives_cupy_bytes(monkeypatch):
    properties = [{"name": b"NVIDIA H200"}, {"name": b"NVIDIA L4"}]
    runtime = SimpleNamespace(getDeviceCount=lambda: 2, getDeviceProperties=properties.__getitem__)
    cuda = SimpleNamespace(is_available=lambda: True, runtime=runtime)
    monkeypatch.setitem(sys.modules, "cupy", SimpleNamespace(cuda=cuda))

    assert doctor.cupy_devices() == ["NVIDIA H200", "NVIDIA L4"]


def test_a_diagnosis_is_plain_data_for_json(reports, plugin):
    plugin(spec(load="no_such_module:kernel"))
    data = json.loads(json.dumps(doctor.diagnose().to_dict()))
    kernels = {kernel["kernel"]: kernel for kernel in data["kernels"]}

    assert set(data) == {field.name for field in dataclasses.fields(doctor.Diagnosis)} | {"is_sound"}
    assert data["is_sound"] is False and kernels["loopback"]["verdict"] == "cannot be imported"
    assert kernels["numpy"]["report"]["ok"] is True and kernels["numpy"]["cases"] == 6


@pytest.mark.slow
def test_the_conformance_kit_finds_xents_own_kernel_sound_and_a_faulty_one_wrong(plugin):
    plugin(spec(load="toy_kernels:failing", methods=frozenset({"partial"})))
    findings = [doctor.examine(each) for each in registry.kernels if (each.name, each.op) in WITNESSES]

    assert [(finding.kernel, finding.verdict) for finding in findings] == [("numpy", "sound"), ("loopback", "WRONG")]
    assert "ArithmeticError: the kernel broke" in findings[1].reason
