"""The recipes of docs/howto/large_vocabulary.md against the formulas of the field, in float64 on whole logits."""

import re
from pathlib import Path

import numpy as np
import pytest

PAGE = Path(__file__).parent.parent / "docs" / "howto" / "large_vocabulary.md"


@pytest.fixture(scope="module")
def recipes():
    """The names that the page's blocks leave behind, as attributes."""
    pytest.importorskip("torch")
    names = {"__name__": "page"}
    for block in re.findall(r"^```python\n(.*?)^```", PAGE.read_text("utf-8"), re.MULTILINE | re.DOTALL):
        exec(compile(block, PAGE.name, "exec"), names)
    return type("Recipes", (), names)


def wide_logits(recipes, scale=1.0):
    return scale * recipes.hidden.astype(np.float64) @ recipes.classifier.astype(np.float64).T


def lse_of(logits):
    """The log-sum-exp of each row."""
    highest = logits.max(axis=-1)
    return highest + np.log(np.exp(logits - highest[:, None]).sum(axis=-1))


def log_p_of(logits, labels):
    """The log-probability of each row's label."""
    return logits[np.arange(len(labels)), labels] - lse_of(logits)


def test_a_temperature_divides_the_logits(recipes):
    np.testing.assert_allclose(recipes.loss, -log_p_of(wide_logits(recipes), recipes.labels).mean(), rtol=1e-6)
    np.testing.assert_allclose(recipes.sharp, -log_p_of(wide_logits(recipes, 2.0), recipes.labels), rtol=1e-5)


def test_a_z_loss_has_the_square_of_the_log_partition_function_and_its_gradient_both_ways(recipes):
    logits, labels, count = wide_logits(recipes), recipes.labels, recipes.tokens
    lse = lse_of(logits)
    p = np.exp(logits - lse[:, None])
    slope = (p * (1 + 2e-4 * lse[:, None]) - (np.arange(logits.shape[1]) == labels[:, None])) / count

    expected = -log_p_of(logits, labels).mean() + 1e-4 * (lse**2).mean()
    np.testing.assert_allclose(recipes.total.item(), expected, rtol=1e-6)
    for hidden, classifier in ((recipes.h.grad, recipes.w.grad), recipes.gradient[:2]):
        np.testing.assert_allclose(hidden, slope @ recipes.classifier, atol=1e-7)
        np.testing.assert_allclose(classifier, slope.T @ recipes.hidden, atol=1e-7)


def test_the_log_probability_of_an_answer_is_the_sum_of_those_of_its_tokens(recipes):
    for name, scale in (("policy", 1.0), ("reference", 0.9)):
        log_p = log_p_of(wide_logits(recipes, scale), recipes.labels).reshape(4, 16)
        expected = [log_p[row, :length].sum() for row, length in enumerate((16, 9, 12, 3))]

        np.testing.assert_allclose(getattr(recipes, name), expected, rtol=1e-5)


def test_a_sampled_softmax_weighs_each_class_by_how_seldom_it_is_drawn(recipes):
    weight = np.where(np.isin(recipes.ids, recipes.labels), 1.0, recipes.vocabulary / recipes.draws)
    logits = wide_logits(recipes)
    partition = (np.exp(logits[:, recipes.ids]) * weight).sum(axis=1)
    at_label = logits[np.arange(recipes.tokens), recipes.labels]

    assert len(np.unique(recipes.ids)) == len(recipes.ids) < recipes.vocabulary / 10
    np.testing.assert_allclose(recipes.sampled, np.log(partition) - at_label, rtol=1e-5)
