"""Training without a framework: softmax regression on handwritten digits, by gradient descent with xent's gradient."""

import numpy as np
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss
from sklearn.model_selection import train_test_split

import xent

L2, STEP, MOMENTUM, STEPS = 1.0, 0.5, 0.9, 600

images, digits = load_digits(return_X_y=True)
x, x_test, y, y_test = train_test_split(images / 16, digits, test_size=0.3, random_state=0)

loss_and_gradient = xent.value_and_grad(xent.sparse_cross_entropy)
weights, bias = np.zeros((10, 64)), np.zeros(10)
velocities = np.zeros_like(weights), np.zeros_like(bias)
for step in range(STEPS):
    loss, by_logits = loss_and_gradient(x @ weights.T + bias, y, reduction="mean")  # by_logits: (rows, 10)
    # The penalty is ½ L2 Σ w², as in scikit-learn.
    gradients = by_logits.T @ x + L2 / len(x) * weights, by_logits.sum(axis=0)
    for parameter, velocity, gradient in zip((weights, bias), velocities, gradients, strict=True):
        velocity *= MOMENTUM
        velocity -= STEP * gradient
        parameter += velocity
    if step % 100 == 0:
        print(f"step {step:3d}: {float(loss):.4f} nats")

logits = x_test @ weights.T + bias
loss = float(xent.sparse_cross_entropy(logits, y_test, reduction="mean"))
accuracy = float((logits.argmax(axis=1) == y_test).mean())

peer = LogisticRegression(C=1 / L2, max_iter=2000, tol=1e-8).fit(x, y)
peer_loss = log_loss(y_test, peer.predict_proba(x_test))
print(f"held out, xent:         {loss:.4f} nats, accuracy {accuracy:.4f}")
print(f"held out, scikit-learn: {peer_loss:.4f} nats, accuracy {peer.score(x_test, y_test):.4f}")
assert abs(loss - peer_loss) < 1e-3
assert abs(accuracy - peer.score(x_test, y_test)) <= 0.004  # two of 540 digits
