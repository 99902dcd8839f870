"""Every promise of xent's contract, by the conformance kit; nothing else is needed."""

from xent.testing import KernelConformance


class TestConformance(KernelConformance):
    """A failure prints its worst case as code that reproduces it."""

    kernels = "template"
