"""A training step of flax and optax under ``jax.jit`` with xent's loss, beside the same step with optax' loss."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from training import are_one_curve, train

import xent

ROWS, WIDTH, CLASSES, STEPS = 512, 32, 8000, 30
TARGET = "xent_numba_sparse_loss_and_gradient_float32"


class Network(nn.Module):
    """Two dense layers."""

    classes: int = CLASSES

    @nn.compact
    def __call__(self, x):
        return nn.Dense(self.classes)(nn.tanh(nn.Dense(64)(x)))


def xents(logits, labels):
    return xent.sparse_cross_entropy(logits, labels, reduction="mean")


def optaxs(logits, labels):
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()


def slightly_smoothed(logits, labels):
    """Another loss, by a thousandth of its targets."""
    return xent.sparse_cross_entropy(logits, labels, label_smoothing=1e-3, reduction="mean")


def batches(steps=STEPS, classes=CLASSES):
    """Inputs, and labels that can be learned from them."""
    rng = np.random.default_rng(0)
    for _ in range(steps):
        labels = rng.integers(0, 40, ROWS) ** 2 % classes
        x = rng.standard_normal((ROWS, WIDTH)) + np.sin(labels[:, None] * np.arange(WIDTH))
        yield jnp.asarray(x, jnp.float32), jnp.asarray(labels)


class Training:
    """A network, its optimizer, and a step that XLA compiles."""

    def __init__(self, loss, classes=CLASSES):
        network, self.optimizer = Network(classes), optax.adamw(1e-3)
        self.parameters = network.init(jax.random.key(0), jnp.zeros((1, WIDTH)))
        self.state = self.optimizer.init(self.parameters)

        @jax.jit
        def step(parameters, state, x, labels):
            def of_parameters(parameters):
                return loss(network.apply(parameters, x), labels)

            value, slope = jax.value_and_grad(of_parameters)(parameters)
            updates, state = self.optimizer.update(slope, state, parameters)
            return value, optax.apply_updates(parameters, updates), state

        self.compiled = step

    def step(self, batch):
        loss, self.parameters, self.state = self.compiled(self.parameters, self.state, *batch)
        return loss


def trained(loss):
    return train(Training(loss).step, batches())


@pytest.mark.parametrize("kernel", ["numba-ffi", "generic"])
def test_a_network_learns_as_with_optax_loss(kernel, measured):
    theirs = trained(optaxs)
    with xent.using(kernel=kernel):
        ours = trained(xents)
        training = Training(xents)
        text = training.compiled.lower(training.parameters, training.state, *next(batches())).as_text()
    measured(f"flax network, {ROWS} rows of {CLASSES} classes, {kernel}", ours.seconds, theirs.seconds)

    assert are_one_curve(ours.losses, theirs.losses)
    assert text.count(TARGET) == (1 if kernel == "numba-ffi" else 0)  # one read serves loss and gradient


def test_another_loss_is_another_curve():
    assert not are_one_curve(trained(slightly_smoothed).losses, trained(optaxs).losses)


@pytest.mark.parametrize("kernel", ["numba-ffi", "generic"])
def test_steps_in_a_scan_are_the_steps_one_by_one(kernel):
    with xent.using(kernel=kernel):
        training = Training(xents, classes=300)
        one_by_one = [training.step(batch) for batch in batches(5, 300)]
        start = Training(xents, classes=300)

        def step(carry, batch):
            loss, *carry = start.compiled(*carry, *batch)
            return tuple(carry), loss

        stacked = jax.tree.map(lambda *arrays: jnp.stack(arrays), *batches(5, 300))
        _, in_scan = jax.jit(lambda carry: jax.lax.scan(step, carry, stacked))((start.parameters, start.state))

    assert are_one_curve(in_scan, one_by_one)


@pytest.mark.parametrize("kernel", ["numba-ffi", "generic"])
@pytest.mark.parametrize("bad", [300, -1])
def test_a_label_that_is_none_shows(kernel, bad):
    """In a trace, where nothing can raise, it makes the loss NaN; optax takes −1 for the last class."""
    ((x, labels),) = batches(1, 300)
    labels = labels.at[3].set(bad)
    with xent.using(kernel=kernel):
        training = Training(xents, classes=300)

        assert np.isnan(training.step((x, labels)))
        with pytest.raises(xent.LabelError, match=rf"{bad}"):
            xents(jnp.zeros((ROWS, 300)), labels)


@pytest.mark.parametrize("kernel", ["numba-ffi", "generic"])
def test_labels_of_another_number_are_refused_in_a_trace(kernel):
    ((x, labels),) = batches(1, 300)
    with (
        xent.using(kernel=kernel),
        pytest.raises(ValueError, match=r"sparse_cross_entropy: .*512.*511"),
    ):
        Training(xents, classes=300).step((x, labels[:-1]))
