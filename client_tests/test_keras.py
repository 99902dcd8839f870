"""``keras.Model.fit`` on its three backends with the losses of ``xent.compat.keras``, beside Keras' own."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from training import are_one_curve

SCRIPT = Path(__file__).with_name("keras_fit.py")
ALIKE = ("labels", "function", "ignored", "soft", "yes", "probabilities")
ALIKE += ("weights", "weighed rows", "weighed classes", "saved")


@pytest.fixture(scope="module", params=["tensorflow", "torch", "jax"])
def runs(request):
    """For each case the run with Keras' loss and the run with xent's: a backend is chosen once in a process."""
    environment = {**os.environ, "KERAS_BACKEND": request.param, "TF_CPP_MIN_LOG_LEVEL": "3"}
    done = subprocess.run([sys.executable, SCRIPT], env=environment, capture_output=True, text=True, timeout=1200)
    assert done.returncode == 0, done.stderr
    return {"backend": request.param, **json.loads(done.stdout.splitlines()[-1])}


@pytest.mark.parametrize("case", ALIKE)
def test_a_model_learns_as_with_keras_loss(runs, case):
    theirs, ours = runs[case]

    assert len(ours) == 10 and are_one_curve(ours, theirs)


def test_a_bad_label_is_named_where_values_can_be_read(runs):
    theirs, ours = runs["bad label"]
    if runs["backend"] == "jax":  # in a trace it makes the loss NaN; with Keras' own loss it goes unseen
        assert all(loss != loss for loss in ours) and theirs[-1] == theirs[-1]
    else:
        assert "LabelError" in ours and "must lie in [0, 7), got 1 outside; the first, at position 5, is 7" in ours


def test_targets_of_another_shape_are_refused(runs):
    theirs, ours = runs["bad shape"]

    assert "Error" in theirs
    assert "the targets must have the same shape as the predictions, (32, 7), got (32, 6)" in ours
