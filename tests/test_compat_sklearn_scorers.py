"""xent.compat.sklearn's scorers, beside scikit-learn's own of the same names."""

import pickle
import sys

import numpy as np
import pytest

from xent.compat import sklearn as compat

metrics = pytest.importorskip("sklearn.metrics", reason="scikit-learn is not installed")
from sklearn.linear_model import LogisticRegression  # noqa: E402  # only where it is installed
from sklearn.model_selection import GridSearchCV, cross_val_score, cross_validate  # noqa: E402

ROUNDING = 1e-12  # of means of some tens of losses in float64
RNG = np.random.default_rng(0)
X = RNG.standard_normal((90, 3))
CLASSES = (X @ RNG.standard_normal((3, 3)) + RNG.standard_normal((90, 3))).argmax(1)
TARGETS = {"numbers": CLASSES, "text": np.asarray(["ham", "jam", "spam"])[CLASSES], "two": (CLASSES > 0).astype(int)}
NAMES = [*compat.SCORERS]
MODEL = LogisticRegression()


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("name", NAMES)
def test_the_scores_of_folds_are_scikit_learns_of_that_name(name, target):
    theirs = cross_val_score(MODEL, X, TARGETS[target], scoring=name, cv=3)
    ours = cross_val_score(MODEL, X, TARGETS[target], scoring=compat.get_scorer(name), cv=3, error_score="raise")

    assert ours == pytest.approx(theirs, rel=ROUNDING) and len(set(ours)) == 3


def test_a_scorer_is_an_object_of_its_own_and_may_stand_among_others():
    scoring = {
        "loss": compat.neg_log_loss_scorer,
        "brier": compat.neg_brier_score_scorer,
        "d2": compat.d2_log_loss_scorer,
    }
    scores = cross_validate(MODEL, X, CLASSES, scoring=scoring, cv=3, error_score="raise")

    assert np.all(scores["test_loss"] < 0) and np.all(scores["test_brier"] < 0) and np.all(scores["test_d2"] < 1)
    assert [compat.get_scorer(name) for name in NAMES] == [
        compat.d2_log_loss_scorer,
        compat.neg_brier_score_scorer,
        compat.neg_log_loss_scorer,
    ]
    assert "xent" in compat.neg_log_loss_scorer._score_func.__module__


def test_a_search_finds_the_model_that_it_finds_by_scikit_learns_score():
    theirs, ours = (
        GridSearchCV(MODEL, {"C": [1e-3, 1e-1, 10.0]}, scoring=scoring, cv=3).fit(X, CLASSES)
        for scoring in ("neg_log_loss", compat.neg_log_loss_scorer)
    )

    assert ours.best_params_ == theirs.best_params_ and ours.best_score_ == pytest.approx(
        theirs.best_score_, rel=ROUNDING
    )


@pytest.mark.parametrize("name", NAMES)
def test_a_scorer_can_be_pickled(name):
    scorer, model = compat.get_scorer(name), LogisticRegression().fit(X, CLASSES)

    assert pickle.loads(pickle.dumps(scorer))(model, X, CLASSES) == scorer(model, X, CLASSES)


def test_weights_reach_the_score():
    model, weight = LogisticRegression().fit(X, CLASSES), RNG.random(90)
    scorers = metrics.get_scorer("neg_log_loss"), compat.neg_log_loss_scorer
    theirs, ours = (scorer(model, X, CLASSES, sample_weight=weight) for scorer in scorers)

    assert ours == pytest.approx(theirs, rel=ROUNDING) != compat.neg_log_loss_scorer(model, X, CLASSES)


def test_another_name_is_refused_with_those_that_there_are():
    with pytest.raises(
        ValueError, match=r"`scoring` must be one of .*'neg_log_loss', got 'accuracy'\. sklearn.metrics"
    ):
        compat.get_scorer("accuracy")


def test_without_scikit_learn_the_scores_are_there_and_a_scorer_says_what_is_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.metrics", None)
    monkeypatch.delitem(sys.modules, "xent.compat.sklearn.scorers", raising=False)
    for name in (*compat.SCORERS.values(), "scorers"):
        monkeypatch.delitem(vars(compat), name, raising=False)

    with pytest.raises(ModuleNotFoundError, match=r"neg_log_loss_scorer is an object of scikit-learn"):
        compat.neg_log_loss_scorer
    assert compat.log_loss([0, 1], [0.5, 0.5]) == pytest.approx(np.log(2))
