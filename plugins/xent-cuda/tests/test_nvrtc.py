"""The kernels as NVIDIA's compiler builds them, without a GPU: registers, spills, 16-byte accesses.

Compiled with the options that CuPy adds to its own, so that what is measured is what is run.
"""

import functools
import re

import pytest
from xent_cuda import device
from xent_cuda.plan import C_TYPES, CLUSTER_CAPABILITY, LABEL, SOFT, Device, Shape, plan

nvrtc = pytest.importorskip("cuda.bindings.nvrtc", reason="cuda-bindings is not installed")

BY_CUPY = ("-ftz=true", "--device-as-default-execution-space")
ARCHITECTURES = {"sm_80": Device(80, 108, 166912, 167936), "sm_90": Device(), "sm_100": Device(100, 148)}
REGISTERS_OF_ALL = 65536
REGISTERS_AT_MOST = {"f16": 80, "bf16": 80, "float": 80, "double": 128}
SHAPES = [(1000, 10), (1000, 60), (1000, 1000), (1000, 5000), (1000, 32000), (4096, 128256), (8, 128256)]
METHODS = ("loss", "loss_and_gradient", "gradient", "statistics")
AT_ONCE = 512
"""Threads of a multiprocessor, at least, for which it must have registers."""


def checked(result):
    assert result[0] == nvrtc.nvrtcResult.NVRTC_SUCCESS, result[0]
    return result[1] if len(result) == 2 else result[1:]


def log_of(program):
    log = b" " * checked(nvrtc.nvrtcGetProgramLogSize(program))
    nvrtc.nvrtcGetProgramLog(program, log)
    return log.decode(errors="replace")


def launches(architecture, ctype):
    """What is planned for some shapes of a dtype on a GPU of the architecture."""
    dtype = next(name for name, value in C_TYPES.items() if value == ctype)
    planned = {}
    for rows, classes in SHAPES:
        for method in METHODS:
            kinds = (LABEL,) if method == "statistics" or architecture != "sm_90" else (LABEL, SOFT)
            for kind in kinds:
                shape = Shape(rows, classes, dtype, kind, method)
                planned |= {launch.kernel: launch for launch in plan(shape, ARCHITECTURES[architecture]).launches}
    return planned


@functools.cache
def compiled(architecture, ctype, text="", only=""):
    """Registers, spilled bytes and PTX of every instance: {name: (registers, spilled)}, PTX."""
    names = [only] if only else list(launches(architecture, ctype))
    program = checked(nvrtc.nvrtcCreateProgram((text or device.source()).encode(), b"xent.cu", 0, [], []))
    for name in names:
        checked((*nvrtc.nvrtcAddNameExpression(program, name.encode()), None))
    options = [f"-arch={architecture}", "--ptxas-options=-v", *device.OPTIONS, *BY_CUPY]
    outcome = nvrtc.nvrtcCompileProgram(program, len(options), [option.encode() for option in options])[0]
    log = log_of(program)
    assert outcome == nvrtc.nvrtcResult.NVRTC_SUCCESS, log[:4000]
    ptx = b" " * checked(nvrtc.nvrtcGetPTXSize(program))
    nvrtc.nvrtcGetPTX(program, ptx)
    resources = {}
    pattern = r"entry function '(\S+)'.*?(\d+) bytes spill stores, (\d+) bytes spill loads.*?Used (\d+) registers"
    for lowered, stores, loads, registers in re.findall(pattern, log, re.S):
        resources[lowered] = int(registers), int(stores) + int(loads)
    lowered = {name: checked(nvrtc.nvrtcGetLoweredName(program, name.encode())).decode() for name in names}
    return {name: resources[lowered[name]] for name in names}, ptx.decode()


PAIRS = [("sm_80", "bf16"), ("sm_90", "bf16"), ("sm_90", "float"), ("sm_90", "double"), ("sm_100", "f16")]


@pytest.mark.parametrize(("architecture", "ctype"), PAIRS)
def test_every_planned_kernel_compiles_and_its_blocks_fit_a_multiprocessor(architecture, ctype):
    resources, _ = compiled(architecture, ctype)

    for name, launch in launches(architecture, ctype).items():
        registers, spilled = resources[name]
        assert registers * max(launch.threads, AT_ONCE) <= REGISTERS_OF_ALL, name
        assert registers <= REGISTERS_AT_MOST[ctype], (name, registers)
        assert ctype == "double" or spilled == 0, (name, spilled)


@pytest.mark.parametrize(("architecture", "ctype"), PAIRS)
def test_rows_are_read_and_written_sixteen_bytes_at_a_time(architecture, ctype):
    _, ptx = compiled(architecture, ctype)
    bodies = re.findall(r"\.entry (\S+?)\(.*?\n\}", ptx, re.S)
    loads, stores = re.findall(r"ld\.global\.cg\.v4\.u32", ptx), re.findall(r"st\.global\.cs\.v4\.u32", ptx)

    assert len(loads) >= len(bodies) and len(stores) >= len(bodies) // 4


def test_a_kernel_that_spills_is_found():
    """A negative control: a bound on registers that the compiler cannot meet shows in its log."""
    text = device.source().replace("BLOCK > 768 ? 1 : 768 / BLOCK", "2048 / BLOCK")
    ((_, spilled),) = compiled("sm_90", "bf16", text, "fold<bf16, 0, 1, 256, 256>")[0].values()

    assert spilled > 0


def test_clusters_are_compiled_where_there_are_some():
    assert not any("cluster" in name for name in launches("sm_80", "bf16"))
    assert any("cluster" in name for name in launches("sm_90", "bf16"))
    assert CLUSTER_CAPABILITY == 90
