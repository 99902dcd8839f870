"""Small kernels for the tests of dispatch: the generic fold under other names, and some that misbehave."""

import numpy as np

import xent
from xent.backends.generic import schedule as generic
from xent.backends.numpy.kernel import SparseNumpy


class Loopback:
    """The generic fold, counting how often it is asked."""

    def __init__(self):
        self.calls = 0

    def partial(self, logits, labels, on, off, *, threads):
        self.calls += 1
        return generic.sparse.partial(logits, labels, on, off, threads=threads)

    def gradient(self, *arguments, threads, out=None):
        self.calls += 1
        return generic.sparse.gradient(*arguments, threads=threads, out=out)

    def statistics(self, *arguments, threads):
        self.calls += 1
        return generic.sparse.statistics(*arguments, threads=threads)


class Watched(SparseNumpy):
    """The kernel of NumPy, which notes the logits and the ``out`` that it is given."""

    def __init__(self):
        self.given = []

    def loss_and_gradient(self, logits, *arguments, threads, out=None):
        self.given.append((logits, out))
        return super().loss_and_gradient(np.array(logits), *arguments, threads=threads, out=out)


class Failing:
    """A kernel that fails while it computes."""

    def partial(self, logits, labels, on, off, *, threads):
        raise ArithmeticError("the kernel broke")


class Threads:
    """A kernel that notes how many threads it was given."""

    seen: list[int] = []  # noqa: RUF012  # shared on purpose: the test reads it

    def partial(self, logits, labels, on, off, *, threads):
        self.seen.append(threads)
        return generic.sparse.partial(logits, labels, on, off, threads=threads)


class Middle:
    """A kernel that takes blocks (outer, classes, inner), and notes their shapes."""

    seen: list[tuple[int, ...]] = []  # noqa: RUF012  # shared on purpose: the test reads it

    def flat(self, block):
        self.seen.append(block.shape)
        return block if block.ndim == 2 else np.moveaxis(block, 1, 2).reshape(-1, block.shape[1])

    def partial(self, logits, labels, on, off, *, threads):
        return generic.sparse.partial(self.flat(logits), labels, on, off, threads=threads)

    def gradient(self, logits, *arguments, threads, out=None):
        slope = generic.sparse.gradient(self.flat(logits), *arguments, threads=threads)
        if logits.ndim == 2:
            return slope
        outer, classes, inner = logits.shape
        return np.moveaxis(slope.reshape(outer, inner, classes), 2, 1)

    def statistics(self, logits, labels, label_logit, *, threads):
        return generic.sparse.statistics(self.flat(logits), labels, label_logit, threads=threads)


loopback, failing, threads, middle = Loopback(), Failing(), Threads(), Middle()


def spec(name="loopback", load="toy_kernels:loopback", **facts):
    """A KernelSpec for labels on NumPy."""
    defaults = {"op": "sparse", "methods": frozenset({"partial", "gradient"}), "dtypes": frozenset({"float32"})}
    return xent.KernelSpec(name=name, load=load, **{**defaults, **facts})


class Plugin:
    """A plugin that registers the given specs."""

    def __init__(self, *specs):
        self.specs = specs

    @xent.hookimpl
    def xent_register_kernels(self):
        return self.specs


def logits(rows=7, classes=5, dtype="float32"):
    """Some logits and labels."""
    x = np.random.default_rng(rows * classes).standard_normal((rows, classes)).astype(dtype)
    return x, np.arange(rows) % classes


def broken_schedule(plan, predictions, targets, weights):
    """A backend that fails while it runs."""
    raise ArithmeticError("the backend broke")


class Whole:
    """A kernel whose gradient comes with the loss of whole rows only."""

    def partial(self, logits, labels, on, off, *, threads):
        return generic.sparse.partial(logits, labels, on, off, threads=threads)

    def loss_and_gradient(self, logits, labels, on, off, scale, *, threads, out=None):
        partial = self.partial(logits, labels, on, off, threads=threads)
        loss = partial.target_gap + partial.target_sum * np.log1p(partial.sum_exp_rest)
        return loss, generic.sparse.gradient(logits, labels, on, off, partial, scale, threads=threads, out=out)


whole, watched = Whole(), Watched()


class Graphs(Whole):
    """A kernel for the graphs of torch.compile, counting how often it is asked."""

    def __init__(self):
        self.calls = []

    def loss(self, logits, labels, on, off, *, threads):
        self.calls.append("loss")
        partial = self.partial(logits, labels, on, off, threads=threads)
        loss = partial.target_gap + partial.target_sum * np.log1p(partial.sum_exp_rest)
        return np.where((labels < 0) | (labels >= logits.shape[1]), np.float32(np.nan), loss)

    def loss_and_gradient(self, *arguments, threads, out=None):
        self.calls.append("loss_and_gradient")
        return super().loss_and_gradient(*arguments, threads=threads, out=out)


graphs = Graphs()
GRAPHS = {
    "name": "graphs",
    "load": "toy_kernels:graphs",
    "devices": frozenset({"cpu", "traced"}),
    "methods": frozenset({"partial", "loss", "loss_and_gradient"}),
}
