"""scikit-learn's scorers of these scores, for ``cross_val_score``, ``GridSearchCV`` and their like."""

from __future__ import annotations

from sklearn.metrics import make_scorer

from .functions import brier_score_loss, d2_log_loss_score, log_loss

neg_log_loss_scorer = make_scorer(log_loss, greater_is_better=False, response_method="predict_proba")
neg_brier_score_scorer = make_scorer(brier_score_loss, greater_is_better=False, response_method="predict_proba")
d2_log_loss_scorer = make_scorer(d2_log_loss_score, response_method="predict_proba")
