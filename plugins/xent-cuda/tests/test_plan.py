"""The plan of a call, for any shape on any GPU: what it launches can be launched, and covers every row and class."""

import re

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings
from xent_cuda import plan as planning
from xent_cuda.plan import FROM_PARTIAL, LABEL, SMOOTHED, SOFT, STATISTICS, Device, Shape, plan, variants

H200 = Device()
A100 = Device(capability=80, multiprocessors=108, shared_bytes=166912, shared_bytes_per_multiprocessor=167936)
LAPTOP = Device(capability=89, multiprocessors=20, shared_bytes=101376, shared_bytes_per_multiprocessor=102400)
B200 = Device(capability=100, multiprocessors=148, shared_bytes=232448, shared_bytes_per_multiprocessor=233472)
DEVICES = [H200, A100, LAPTOP, B200]
NAME = re.compile(r"(tile|fold|fold_in_cluster)<(f16|bf16|float|double), ([012]), (\d+), (.*)>")

dtypes = st.sampled_from(sorted(planning.BYTES))
methods = st.sampled_from(sorted(planning.METHODS))
sizes = st.integers(1, 300) | st.integers(1, 2**20) | st.integers(1, planning.MAX_CLASSES)


@st.composite
def shapes(draw):
    method = draw(methods)
    kind = LABEL if method == "statistics" else draw(st.sampled_from([LABEL, SMOOTHED, SOFT]))
    rows, classes = draw(sizes), draw(sizes)
    in_place = method in ("gradient", "loss_and_gradient") and draw(st.booleans())
    return Shape(rows, classes, draw(dtypes), kind, method, draw(st.booleans()), in_place)


def numbers_of(launch):
    """The template of a launch, its kind and mode, and its geometry."""
    template, _, kind, mode, rest = NAME.fullmatch(launch.kernel).groups()
    return template, int(kind), int(mode), [int(number) for number in rest.split(", ")]


@settings(max_examples=2000)
@given(shapes(), st.sampled_from(DEVICES), st.data())
def test_what_is_planned_can_be_launched(shape, device, data):
    variant = data.draw(st.sampled_from(["", *variants(shape, device)]))
    planned = plan(shape, device, variant)

    assert planned.launches
    for launch in planned.launches:
        template, kind, mode, geometry = numbers_of(launch)
        assert 1 <= launch.blocks < 2**31
        threads = geometry[0] if template != "fold" else geometry[1]
        assert launch.threads == threads and threads in (128, 256, 512)
        assert 0 <= launch.shared_bytes <= device.shared_bytes
        assert kind == shape.kind
        assert launch.blocks % launch.cluster == 0 and launch.cluster <= 8
        assert launch.cluster == 1 or device.capability >= 90
        assert (template == "fold_in_cluster") == (launch.cluster > 1)
        if template != "tile":
            assert launch.blocks % planned.parts == 0
            teams = 1 if geometry[0] == launch.threads or launch.cluster > 1 else launch.threads // geometry[0]
            scratch = planning.SCRATCH_BYTES if teams == 1 else 0
            assert scratch + teams * planned.cached * 16 <= launch.shared_bytes or mode & (FROM_PARTIAL | 8 | 16 | 32)


@settings(max_examples=1000)
@given(shapes(), st.sampled_from(DEVICES))
def test_parts_cover_every_class_and_what_is_cached_is_of_one_part(shape, device):
    planned = plan(shape, device)
    per_granule = 16 // planning.BYTES[shape.dtype]
    part_granules = planning.ceil_div(planning.ceil_div(shape.classes, planned.parts), per_granule)  # as in xent.cu

    assert part_granules * per_granule * planned.parts >= shape.classes
    assert planned.cached <= part_granules + 1


@pytest.mark.parametrize("dtype", sorted(planning.BYTES))
@pytest.mark.parametrize("classes", range(1, planning.TILE_CLASSES + 1))
def test_rows_of_a_tile_begin_in_different_banks(dtype, classes):
    shape = Shape(1000, classes, dtype)
    begins = [row * shape.row_bytes // 4 % 32 for row in range(32)]
    meeting = max(begins.count(bank) for bank in begins)

    assert plan(shape, H200).variant != "tile" or meeting <= 4


@pytest.mark.parametrize(
    ("rows", "classes", "dtype", "method", "device", "variant"),
    [
        (16_000_000, 10, "float32", "loss", H200, "tile"),
        (1_000_000, 1000, "float32", "loss_and_gradient", H200, "warp"),
        (1000, 100, "bfloat16", "loss", H200, "lanes"),
        (32768, 32000, "bfloat16", "loss_and_gradient", H200, "block"),
        (4096, 128256, "bfloat16", "loss_and_gradient", H200, "cluster"),
        (4096, 128256, "bfloat16", "loss", A100, "block"),
        (8, 128256, "bfloat16", "loss", H200, "split"),
        (8, 128256, "bfloat16", "gradient", H200, "block"),
        (8, 128256, "bfloat16", "statistics", H200, "cluster"),
    ],
)
def test_each_shape_goes_to_the_variant_it_is_made_for(rows, classes, dtype, method, device, variant):
    assert plan(Shape(rows, classes, dtype, LABEL, method), device).variant == variant


def test_a_cluster_is_as_small_as_can_cache_the_row():
    sizes = {classes: plan(Shape(4096, classes, "bfloat16"), H200).parts for classes in (50257, 70000, 128256, 262144)}

    assert sizes == {50257: 2, 70000: 2, 128256: 4, 262144: 8}
    assert plan(Shape(4096, 32000, "bfloat16"), H200).parts == 1


def test_a_gradient_in_place_is_never_split():
    shape = Shape(8, 128256, "bfloat16", LABEL, "loss_and_gradient")

    assert plan(shape, H200).variant == "split"
    assert plan(shape._replace(is_in_place=True), H200).variant == "cluster"


def test_rows_that_lie_apart_are_not_read_as_a_tile():
    assert plan(Shape(100, 10, "float32"), H200).variant == "tile"
    assert plan(Shape(100, 10, "float32", is_packed=False), H200).variant == "lanes"


def test_no_rows_launch_nothing():
    assert plan(Shape(0, 10, "float32"), H200).launches == ()


def test_a_variant_that_cannot_serve_is_refused_with_those_that_can():
    with pytest.raises(ValueError, match=r"plan: `variant` must be one of warp, split, cluster, block .* got 'tile'"):
        plan(Shape(100, 1000, "float32"), H200, "tile")


def test_statistics_are_of_labels():
    launches = plan(Shape(9, 99, "float32", method="statistics"), H200).launches

    assert all(numbers_of(launch)[2] & STATISTICS for launch in launches)
