"""Cross-validation of scikit-learn's models by xent's scores, beside scikit-learn's own."""

import numpy as np
import pytest
from sklearn.datasets import load_iris, make_classification
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import make_scorer
from sklearn.model_selection import GridSearchCV, cross_val_score, cross_validate
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from xent.compat import sklearn as compat

scorer = compat.neg_log_loss_scorer
model = make_pipeline(StandardScaler(), LogisticRegression())
ROUNDING = 1e-12  # of means of some tens of losses in float64


@pytest.fixture(params=["integers", "strings", "two classes"])
def data(request):
    if request.param == "two classes":
        return make_classification(150, random_state=0)
    x, y = load_iris(return_X_y=True)
    return x, np.asarray(["setosa", "versicolor", "virginica"])[y] if request.param == "strings" else y


@pytest.mark.parametrize("jobs", [1, 2])
def test_the_scores_of_the_folds_are_those_of_neg_log_loss(data, jobs):
    theirs = cross_val_score(model, *data, scoring="neg_log_loss")
    ours = cross_val_score(model, *data, scoring=scorer, n_jobs=jobs, error_score="raise")

    assert ours == pytest.approx(theirs, rel=ROUNDING)
    assert len(set(ours)) == 5 and np.all(ours < 0)


def test_brier_scores_and_d2_are_scikit_learns_too(data):
    x, y = data
    labels = {"pos_label": 1} if len(set(y)) == 2 else {}
    by_name = cross_validate(model, x, y, scoring={"brier": "neg_brier_score", "d2": "d2_log_loss_score"})
    options = {"response_method": "predict_proba"}
    brier = make_scorer(compat.brier_score_loss, greater_is_better=False, **options, **labels)
    d2 = make_scorer(compat.d2_log_loss_score, **options)
    ours = cross_validate(model, x, y, scoring={"brier": brier, "d2": d2}, error_score="raise")

    assert ours["test_brier"] == pytest.approx(by_name["test_brier"], rel=ROUNDING)
    assert ours["test_d2"] == pytest.approx(by_name["test_d2"], rel=ROUNDING)


def test_a_search_finds_the_same_model():
    x, y = load_iris(return_X_y=True)
    strengths = {"logisticregression__C": [1e-3, 1e-1, 10.0]}
    searches = [GridSearchCV(model, strengths, scoring=score).fit(x, y) for score in ("neg_log_loss", scorer)]
    theirs, ours = searches

    assert ours.best_params_ == theirs.best_params_
    assert ours.cv_results_["mean_test_score"] == pytest.approx(theirs.cv_results_["mean_test_score"], rel=ROUNDING)
    assert len(set(ours.cv_results_["rank_test_score"])) == 3


def test_a_fold_without_one_of_the_classes_says_so_unless_the_labels_are_given():
    x, y = load_iris(return_X_y=True)
    by_class = [(np.arange(150), np.arange(0, 70))]  # no virginica among the scored rows
    with pytest.raises(ValueError, match=r"different number of classes: 2 vs 3"):
        cross_val_score(model, x, y, scoring=scorer, cv=by_class, error_score="raise")
    with_labels = make_scorer(
        compat.log_loss, response_method="predict_proba", greater_is_better=False, labels=[0, 1, 2]
    )

    assert np.isfinite(cross_val_score(model, x, y, scoring=with_labels, cv=by_class, error_score="raise")).all()


def test_a_model_of_no_probabilities_is_refused():
    class Doubled(LogisticRegression):
        def predict_proba(self, x):
            return 2 * super().predict_proba(x)

    with pytest.raises(ValueError, match=r"greater than 1"):
        cross_val_score(Doubled(), *load_iris(return_X_y=True), scoring=scorer, error_score="raise")
