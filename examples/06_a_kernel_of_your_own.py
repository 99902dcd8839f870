"""A kernel of your own: written from scratch, checked against the contract, registered, and chosen by dispatch."""

import numpy as np

import xent
from xent.testing import check_kernel


class Kernel:
    """The fold's four numbers of each row: maximum, sum of the other exponentials, gap and sum of the target."""

    def partial(self, logits, labels, on, off, *, threads):
        x, rows = logits.astype(np.float64), np.arange(len(labels))
        first = x.argmax(axis=1)
        highest = x[rows, first]
        masked = highest == -np.inf
        gaps = np.where(masked, 0.0, highest)[:, None] - x
        gaps[rows, first] = np.where(masked, np.inf, 0.0)
        exps = np.exp(-gaps)
        exps[rows, first] = 0.0  # without the maximum, so that a tiny loss keeps its digits
        rest = np.where(masked, -1.0, exps.sum(axis=1) + np.where(np.isnan(highest), np.nan, 0.0))
        inside = (labels >= 0) & (labels < x.shape[1])
        gap = np.where(inside, gaps[rows, np.where(inside, labels, 0)], 0.0)
        return xent.Partial(*(field.astype(np.float32) for field in (highest, rest, gap, inside)))


kernel = Kernel()


def without_smoothing(problem):
    return problem.options.label_smoothing == 0 or "knows no label smoothing"


LOAD = f"{__name__}:kernel"  # "my_package.my_module:kernel" in a package
FACTS = {"dtypes": {"float32"}, "block_elements": 1 << 16, "priority": 1000}
SPEC = xent.KernelSpec(name="mine", op="sparse", load=LOAD, check=without_smoothing, **FACTS)


class Plugin:
    @xent.hookimpl
    def xent_register_kernels(self):
        return [SPEC]


logits = np.random.default_rng(6).standard_normal((4, 10), dtype=np.float32)
labels = np.array([1, 2, 3, 4])
before = xent.explain(xent.sparse_cross_entropy, logits, labels)
report = check_kernel(SPEC)
print(str(report).partition("\n")[0])
xent.register(Plugin(), "my-plugin")
after = xent.explain(xent.sparse_cross_entropy, logits, labels)
smoothed = xent.explain(xent.sparse_cross_entropy, logits, labels, label_smoothing=0.1)
print(after, smoothed, sep="\n")

assert report.ok, report
assert after.kernel == "mine" and before.kernel == smoothed.kernel != "mine"
