"""Every promise of xent's contract, by the conformance kit; nothing else is needed."""

from xent.testing import KernelConformance


class TestConformance(KernelConformance):
    """What fails here prints the worst case as code that shows it."""

    kernels = "template"
