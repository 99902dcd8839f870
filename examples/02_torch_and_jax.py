"""One function for every array library: the same call on torch tensors and JAX arrays, with their own autodiff."""

import functools

import jax
import numpy as np
import torch

import xent

mean_loss = functools.partial(xent.sparse_cross_entropy, reduction="mean", label_smoothing=0.1)

rng = np.random.default_rng(0)
logits, labels = rng.normal(size=(32, 10)).astype(np.float32), rng.integers(0, 10, 32)
expected, gradient = xent.value_and_grad(mean_loss)(logits, labels)

x = torch.from_numpy(logits.copy()).requires_grad_()
loss = mean_loss(x, torch.from_numpy(labels))
loss.backward()
print("torch:", loss.item(), type(loss).__name__)
assert np.allclose(loss.item(), expected, rtol=1e-6)
assert np.allclose(x.grad.numpy(), gradient, atol=1e-7)

step = jax.jit(jax.value_and_grad(mean_loss))
loss, jax_gradient = step(jax.numpy.asarray(logits), jax.numpy.asarray(labels))
print("JAX:  ", float(loss), type(loss).__name__)
assert np.allclose(loss, expected, rtol=1e-6)
assert np.allclose(jax_gradient, gradient, atol=1e-7)
