"""The conformance kit: right kernels of any style pass, each wrong one is caught by the promise it breaks, by name."""

import pytest
from wrong_kernels import METHODS, WRONG

import xent
from xent.testing import check_kernel


def spec_of(name, **facts):
    """The spec of one of the kernels of wrong_kernels.py."""
    op = facts.pop("op", "sparse")
    told = {"methods": METHODS[op], "dtypes": frozenset({"float32"}), **facts}
    return xent.KernelSpec(name=name, op=op, load=f"wrong_kernels:kernels.{name}", **told)


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_kernel_is_caught_by_the_promise_it_breaks(name):
    _, promise, facts = WRONG[name]
    report = check_kernel(spec_of(name, **facts), checks=promise)

    assert not report.ok and report.results[0].broken, str(report)
