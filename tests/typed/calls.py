"""A program that uses xent, for type checkers, never run. A line marked ``wrong`` must be an error, and no other."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any, assert_type

import numpy as np
from numpy.typing import NDArray

import xent
import xent.compat.keras
import xent.compat.optax
import xent.compat.sklearn
import xent.compat.tensorflow
import xent.compat.torch
import xent.testing

Floats = NDArray[np.float32]


class Tensor:
    """An array of some library."""

    shape: tuple[int, ...]
    ndim: int
    dtype: Any
    T: Any


def losses(logits: Floats, soft: Floats, labels: NDArray[np.int64], tensor: Tensor) -> None:
    assert_type(xent.sparse_cross_entropy(logits, labels), Floats)
    assert_type(xent.sparse_cross_entropy(tensor, tensor, reduction="mean"), Tensor)
    assert_type(xent.cross_entropy(logits, soft, kind="probabilities", sample_weight=soft), Floats)
    assert_type(xent.binary_cross_entropy(logits, soft, reduction=xent.Mean("counted"), pos_weight=2.0), Floats)
    xent.sparse_cross_entropy(logits, labels, ignore_index=(0, -100), class_weight=[1.0, 2.0], axis=1)

    xent.sparse_cross_entropy([[1.0]], labels)  # wrong: a list is no array
    xent.sparse_cross_entropy(logits, labels, reduction="avg")  # wrong: no such reduction
    xent.sparse_cross_entropy(logits, labels, reduction=True)  # wrong: no reduction
    xent.sparse_cross_entropy(logits, labels, kind="logit")  # wrong: no such kind
    xent.sparse_cross_entropy(logits, labels, label_smoothing="0.1")  # wrong: no number
    xent.sparse_cross_entropy(logits, labels, from_logits=True)  # wrong: Keras' keyword
    xent.sparse_cross_entropy(logits)  # wrong: no labels
    xent.sparse_cross_entropy(predictions=logits, labels=labels)  # wrong: positional only
    xent.binary_cross_entropy(logits, soft, kind="log_probabilities")  # wrong: binary losses have two kinds
    xent.cross_entropy(logits, soft, ignore_index=0)  # wrong: soft targets have no label
    xent.Mean(0).denominators  # wrong: no such attribute
    xent.crossentropy(logits, soft)  # wrong: no such function


def products(hidden: Floats, classifier: Floats, labels: NDArray[np.int64]) -> None:
    product = xent.Linear(hidden, classifier, bias=hidden, softcap=30.0)
    assert_type(product, xent.Linear[Floats])
    assert_type(xent.linear_cross_entropy(hidden, classifier, labels, softcap=30.0, reduction="mean"), Floats)
    both = xent.value_and_grad(xent.linear_cross_entropy, of=("hidden", "bias"))
    assert_type(both(hidden, classifier, labels, reduction="mean"), tuple[Floats, xent.LinearGradient[Floats]])
    assert_type(xent.sparse_cross_entropy(product, labels, reduction="mean"), Floats)
    assert_type(xent.cross_entropy(product, hidden), Floats)
    assert_type(xent.logsumexp(product), Floats)
    assert_type(xent.row_statistics(product, labels).lse, Floats)
    whole = xent.partial(product, labels=labels)
    assert_type(xent.finish(whole), Floats)
    assert_type(xent.gradient(product, whole, labels=labels), xent.LinearGradient[Floats])
    of_product = xent.value_and_grad(xent.sparse_cross_entropy, of="hidden")
    assert_type(of_product(product, labels, reduction="mean"), tuple[Floats, xent.LinearGradient[Floats]])
    bound = functools.partial(xent.linear_cross_entropy, reduction="mean")
    xent.value_and_grad(bound, of="hidden")(hidden, classifier, labels)[1].classifier

    few = xent.SparseTargets(labels, hidden, tail=hidden)
    assert_type(few, xent.SparseTargets[Floats])
    assert_type(xent.cross_entropy(product, few, reduction="mean"), Floats)
    assert_type(xent.finish(xent.partial(hidden, targets=few)), Floats)
    assert_type(xent.value_and_grad(xent.cross_entropy)(hidden, few), tuple[Floats, Floats])

    xent.Linear(hidden)  # wrong: no classifier
    xent.sparse_cross_entropy(hidden, few)  # wrong: soft targets are no labels
    xent.SparseTargets(labels, hidden, tail=1.0)  # wrong: one number a row
    xent.linear_cross_entropy(hidden, classifier, labels, temperature=2.0)  # wrong: hidden / temperature
    product.logits  # wrong: they are never whole
    of_product(hidden, labels)  # wrong: an array has no operands
    product / 2  # wrong: hidden / 2
    product[0]  # wrong: it has no elements
    xent.softmax(product)  # wrong: as large as the logits
    xent.binary_cross_entropy(product, labels)  # wrong: its classes exclude each other


def derivatives(logits: Floats, labels: NDArray[np.int64]) -> None:
    loss_and_gradient = xent.value_and_grad(xent.sparse_cross_entropy)
    assert_type(loss_and_gradient(logits, labels, reduction="mean"), tuple[Floats, Floats])
    bound = functools.partial(xent.sparse_cross_entropy, reduction="sum")
    xent.value_and_grad(bound)(logits, labels)
    assert_type(xent.explain(xent.sparse_cross_entropy, logits, labels), xent.Decision)

    assert_type(loss_and_gradient(logits, labels, out=logits), tuple[Floats, Floats])

    loss_and_gradient(logits, labels, reduction="avg")  # wrong: the keywords are those of the loss
    xent.value_and_grad(xent.linear_cross_entropy, of="logits")  # wrong: no such operand
    loss_and_gradient(logits)  # wrong: no labels
    xent.value_and_grad("sparse_cross_entropy")  # wrong: no function


def rows(logits: Floats, labels: NDArray[np.int64]) -> None:
    statistics = xent.row_statistics(logits, labels)
    assert_type(statistics.loss, Floats)
    whole = xent.merge(xent.partial(logits, labels=labels), xent.partial(logits, labels=labels, first_class=3))
    assert_type(xent.finish(whole), Floats)
    assert_type(xent.softmax(logits), Floats)
    assert_type(xent.log_softmax(logits, axis=0), Floats)
    xent.softmax(logits, axis="class")  # the name of a dimension
    assert_type(xent.logsumexp(logits, keepdims=True), Floats)
    assert_type(xent.one_hot(labels, 5), NDArray[np.int64])

    statistics.accuracy  # wrong: no such statistic
    xent.merge(logits, logits)  # wrong: no partials
    xent.softmax(logits, axis=1.0)  # wrong: no axis
    xent.one_hot(labels)  # wrong: how many classes?


def settings() -> None:
    with xent.using(kernel="generic", validate="always", threads=2, trace=True) as decisions:
        assert_type(decisions, list[xent.Decision])

    xent.using(validate="sometimes")  # wrong: no such validation
    xent.using(kernels="generic")  # wrong: no such keyword


def evaluation() -> None:
    found = xent.evaluate("predictions.npy", "labels.npy", kind="probabilities", top_k=(1, 5))
    assert_type(found.mean_loss, float)
    pair = xent.compare("a.npy", "b.npy", "labels.npy", kind_b="probabilities")
    assert_type(pair.p_value, float)
    several = xent.compare_all(["a.npy", "b.npy", "c.npy"], "labels.npy", clusters="clusters.npy")
    assert_type(several.pairs["a", "c"].adjusted_p_value, float)
    assert_type(several.sets["c"].to_json(), str)
    assert_type(found.to_json(), str)
    assert_type(found.to_lm_eval(model_name="net", dataset_name="digits"), str)
    assert_type(found.to_model_index(task_type="image-classification"), str)
    found.to_openmetrics("xent.prom", overwrite=True)
    assert_type(pair.b.to_dict(), dict[str, Any])
    found.to_json("found.json", overwrite=True)
    found.to_html("found.html")
    pair.to_parquet("tables")
    print(found.run.wall_seconds, pair.a.mean_loss)

    scored = xent.evaluate("predictions.npy", "labels.npy", confusion=True, auc=True)
    if scored.confusion is not None and scored.ranking is not None:
        print(scored.confusion.macro.f1 + scored.ranking.macro_auc)
    calibrated = xent.evaluate("predictions.npy", "labels.npy", calibration=True, classwise=True).calibration
    assert_type(calibrated.decomposition.reliability, float)
    if calibrated.smooth is not None and calibrated.classwise is not None:
        print(calibrated.noise_floor + calibrated.smooth.error + calibrated.classwise.error)
    sliced = xent.evaluate(
        "p.npy", "y.npy", slices={"language": "l.npy", "domain": "d.npy"}, cross=[("language", "domain")]
    )
    assert_type(sliced.slices["language=de, domain=law"].accuracy, float)
    weighted = xent.evaluate("predictions.npy", "labels.npy", axis=1, binary=True, weights="weights.npy")
    assert_type(weighted.effective_rows, float | None)
    xent.evaluate("predictions.npy", "labels.npy", class_names=["dog", "cat"], ignore_index="unknown")
    xent.compare("a.npy", "b.npy", "labels.npy", class_names={"dog": 0}, ignore_index=(-100, "unknown"))
    xent.evaluate("s3://lab/predictions.npy", "labels.npy", storage_options={"anon": True, "s3": {"profile": "lab"}})
    xent.evaluate("hidden.npy", "labels.npy", classifier="head.safetensors#lm_head.weight", bias="bias.npy", softcap=30)
    xent.compare("hidden.npy", "hidden.npy", "labels.npy", classifier="a.npy", classifier_b="b.npy", softcap_b=30.0)
    xent.evaluate("hidden.npy", "labels.npy", classifier="head.npy", softcap="30")  # wrong: no number
    xent.evaluate("predictions.npy", "labels.npy", kind="probs")  # wrong: no such kind
    found.to_csv("found.csv")  # wrong: no such form
    found.to_html()  # wrong: to which file?
    xent.evaluate("predictions.npy", "labels.npy", on_error="ignore")  # wrong: no such policy
    xent.compare("a.npy", "b.npy")  # wrong: no labels
    xent.evaluate("predictions.npy", "labels.npy", rows=(0, 1000), state_out="first.json")
    xent.compare("a.npy", "b.npy", "labels.npy", rows=(1000, None), state_out="rest.json", overwrite=True)
    assert_type(xent.index_shards("parts#label", checksums=False), str)
    xent.evaluate("parts", "labels", check_shards=True)
    merged = xent.merge_parts(["first.json", "rest.json"], partial=True, storage_options={"anon": True})
    merged.to_html("report.html")
    xent.evaluate("predictions.npy", "labels.npy", rows=1000)  # wrong: no range


def peers(logits: Floats, labels: NDArray[np.int64]) -> None:
    assert_type(xent.compat.torch.cross_entropy(logits, labels, ignore_index=0), Floats)
    xent.compat.torch.CrossEntropyLoss(reduction="sum")
    xent.compat.sklearn.get_scorer("neg_log_loss")
    assert_type(xent.compat.optax.softmax_cross_entropy(logits, logits), Floats)
    assert_type(xent.compat.tensorflow.softmax_cross_entropy_with_logits(logits, logits), Floats)
    assert_type(xent.compat.keras.categorical_crossentropy(logits, logits, from_logits=True), Floats)

    xent.compat.torch.cross_entropy(logits, labels, reduce="mean")  # wrong: a flag
    xent.compat.torch.MSELoss()  # wrong: no such module
    xent.compat.sklearn.neg_loss_scorer  # wrong: no such scorer
    xent.compat.optax.softmax_cross_entropy(logits)  # wrong: no labels


class Kernel:
    """A plugin's kernel."""

    def partial(
        self, logits: Floats, labels: NDArray[np.int64], on: float, off: float, *, threads: int
    ) -> xent.Partial[Floats]:
        highest = logits.max(axis=1)
        return xent.Partial(highest, highest, highest, highest)


@xent.hookimpl
def xent_register_kernels(api: int) -> Iterator[xent.KernelSpec]:
    yield xent.KernelSpec(name="mine", op="sparse", load="mine:kernel", dtypes=frozenset({"float32"}))
    yield xent.KernelSpec(name="mine", op="both", load="mine:kernel")  # wrong: no such op
    yield xent.KernelSpec("mine")  # wrong: no op and nothing to load


class TestMine(xent.testing.KernelConformance):
    kernels = "mine"
