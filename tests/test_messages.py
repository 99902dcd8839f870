"""Every message of checks/, word for word, from the public call that gets it.

``function: `argument` must rule, got value. Remedy.`` A raise in checks/ that no case here reaches is a failure.
"""

import ast
import functools
import traceback
from pathlib import Path

import numpy as np
import pytest
import toy_library

import xent
from xent import checks
from xent.contract.problem import NO_WEIGHTS, Options
from xent.dispatch import calls
from xent.errors import NotServed
from xent.losses import SPARSE

X, Y, T = np.zeros((3, 5), np.float32), np.asarray([0, 1, 2]), np.zeros((3, 5), np.float32)
IDS = np.zeros((3, 2), np.int64)
ONE = "sparse_cross_entropy: "


def sparse(predictions=X, labels=Y, **keywords):
    return xent.sparse_cross_entropy(predictions, labels, **keywords)


def dense(predictions=X, targets=T, **keywords):
    return xent.cross_entropy(predictions, targets, **keywords)


def few(ids=IDS, weights=T[:, :2], **keywords):
    return xent.SparseTargets(ids, weights, **keywords)


def binary(predictions=X, targets=T, **keywords):
    return xent.binary_cross_entropy(predictions, targets, **keywords)


def torch_call(make):
    """A call on torch's arrays, whose casts are written otherwise."""
    torch = pytest.importorskip("torch")
    return make(torch)


def graph_call(**options):
    """A call as TorchDynamo traces it, on tensors; what it raises there is wrapped by torch."""
    torch = pytest.importorskip("torch")
    return calls.in_torch_graph(SPARSE, torch.zeros(3, 5), torch.tensor([0, 1, 2]), Options(**options), NO_WEIGHTS)


def with_out(out, predictions=X, targets=Y, function=xent.sparse_cross_entropy, **keywords):
    """A call whose gradient goes into an array; ``out`` may be made of the predictions."""
    x = np.array(predictions) if type(predictions) is np.ndarray else predictions
    return xent.value_and_grad(function)(x, targets, out=out(x) if callable(out) else out, **keywords)


def read_only(array):
    copy = np.array(array)
    copy.flags.writeable = False
    return copy


def output_over_the_targets():
    """A dense call whose gradient would go over its targets."""
    targets = np.array(T)
    return with_out(targets, targets=targets, function=xent.cross_entropy)


def output_in_vmap(torch):
    x, y = torch.zeros(2, 3, 5), torch.tensor([0, 1, 2])
    return torch.vmap(lambda row: with_out(torch.zeros(3, 5), row, y)[0])(x)


H, W, B = np.zeros((3, 4), np.float32), np.zeros((5, 4), np.float32), np.zeros(5, np.float32)


def product(hidden=H, classifier=W, **keywords):
    return xent.Linear(hidden, classifier, **keywords)


def dask_call(make):
    return make(pytest.importorskip("dask.array"))


def named_call(**keywords):
    """A call on an array of xarray with the dimensions "row" and "class"; the labels are plain unless given."""
    xarray = pytest.importorskip("xarray")
    labels = keywords.pop("labels", lambda xarray: Y)(xarray)
    return sparse(xarray.DataArray(X, {"row": [3, 4, 5]}, ["row", "class"]), labels, **keywords)


def unknown_rows(da, array, chunks):
    """The array with chunks of unknown lengths."""
    lazy = da.from_array(array, chunks=chunks)
    return lazy[da.from_array(np.ones(len(array), bool), chunks=chunks[:1])]


def declined_call():
    """A call whose forced kernel has a guard that says no."""
    declines = xent.KernelSpec(
        name="picky", op="sparse", load="xent.backends.generic:sparse", guard=lambda shape, strides: False
    )

    class Plugin:
        @xent.hookimpl
        def xent_register_kernels(self):
            return [declines]

    xent.register(Plugin(), "picky")
    try:
        with xent.using(kernel="picky"):
            sparse()
    finally:
        xent.unregister("picky")


def symbolic_call():
    """A call under jax.export whose number of classes is a symbol."""
    jax = pytest.importorskip("jax")
    export = pytest.importorskip("jax.export")
    shape = export.symbolic_shape("rows, classes")
    told = jax.ShapeDtypeStruct(shape, np.float32), jax.ShapeDtypeStruct(shape[:1], np.int32)
    export.export(jax.jit(xent.sparse_cross_entropy))(*told)


def old_strict_call():
    """A call on arrays of a library whose version of the array API is too old."""
    strict = pytest.importorskip("array_api_strict")
    with strict.ArrayAPIStrictFlags(api_version="2023.12"):
        sparse(strict.asarray(X), strict.asarray(Y))


CASES = [
    # -------------------- named dimensions
    (
        lambda: named_call(axis="column"),
        ValueError,
        ONE + "`axis` must be a dimension of the predictions, ('row', 'class'), got 'column'. Pass one of them.",
    ),
    (
        lambda: xent.one_hot(pytest.importorskip("xarray").DataArray(Y, dims=["row"]), 5, axis="row"),
        ValueError,
        "one_hot: `axis` must be a new dimension, got 'row' of ('row',). Pass another name.",
    ),
    (
        lambda: named_call(labels=lambda xarray: xarray.DataArray(Y, dims=["time"])),
        ValueError,
        ONE + "`labels` must have the dimensions ('row',), in any order, got ('time',). "
        "Rename them, or pass labels.data for their order alone.",
    ),
    (
        lambda: named_call(labels=lambda xarray: xarray.DataArray(Y, {"row": [5, 4, 3]}, ["row"])),
        ValueError,
        ONE + "`labels` must have the coordinates of `predictions` along 'row', got others. "
        "Call xarray.align(predictions, labels, exclude=[...]) first, or pass labels.data for their order alone.",
    ),
    # -------------------- arrays
    (
        lambda: graph_call(label_smoothing=np.float32(0.1)),
        TypeError,
        ONE + "`label_smoothing` must be a number of Python under torch.compile, got one of NumPy. "
        "Call its .item() outside of the compiled function.",
    ),
    (
        lambda: sparse(X.tolist()),
        TypeError,
        ONE + "`predictions` must be an array, got list. Pass numpy.asarray(predictions).",
    ),
    (
        lambda: sparse(labels=(0, 1, 2)),
        TypeError,
        ONE + "`labels` must be an array, got tuple. Pass numpy.asarray(labels).",
    ),
    (
        lambda: dense(targets=None),
        TypeError,
        "cross_entropy: `targets` must be an array, got NoneType. Pass an array of NumPy, CuPy, Dask, torch or JAX.",
    ),
    (
        lambda: sparse(np.ma.masked_array(X)),
        TypeError,
        ONE + "`predictions` must be an array, got numpy.MaskedArray. "
        "Pass numpy.ma.filled(predictions, -numpy.inf), or filled with 0 if they are probabilities.",
    ),
    (
        lambda: sparse(sample_weight=[1, 1, 0]),
        TypeError,
        ONE + "`sample_weight` must be an array, got list. Pass numpy.asarray(sample_weight).",
    ),
    (
        lambda: xent.softmax([1.0, 2.0]),
        TypeError,
        "softmax: `predictions` must be an array, got list. Pass numpy.asarray(predictions).",
    ),
    (
        lambda: xent.one_hot([0, 1], 3),
        TypeError,
        "one_hot: `labels` must be an array, got list. Pass numpy.asarray(labels).",
    ),
    (
        lambda: sparse(X.astype(object)),
        TypeError,
        ONE + "`predictions` must have a numeric dtype, got object[3, 5] on numpy. Pass predictions.astype(float).",
    ),
    (
        lambda: torch_call(lambda torch: sparse(torch.zeros((3, 5)).to_sparse(), torch.zeros(3).long())),
        TypeError,
        ONE + "`predictions` must be a dense tensor, got a sparse one. Pass predictions.to_dense().",
    ),
    (
        old_strict_call,
        TypeError,
        ONE + "`predictions` must be of a library with version 2024.12 of the array API or a later one, "
        "got float32[3, 5] on array_api_strict with 2023.12. Use a later version of array_api_strict.",
    ),
    # -------------------- dtypes
    (
        lambda: sparse(X.astype(np.int64)),
        TypeError,
        ONE + '`predictions` must be real floating, got int64[3, 5] on numpy. Pass predictions.astype("float32").',
    ),
    (
        lambda: torch_call(lambda torch: sparse(torch.zeros((3, 5), dtype=torch.int32), torch.zeros(3).long())),
        TypeError,
        ONE + "`predictions` must be real floating, got int32[3, 5] on torch. Pass predictions.to(torch.float32).",
    ),
    (
        lambda: sparse(labels=Y.astype(np.float64)),
        TypeError,
        ONE + "`labels` must be integers, got float64[3] on numpy. If one is NaN, first give it a number that "
        'ignore_index names. Pass labels.astype("int64").',
    ),
    (
        lambda: xent.sparse_cross_entropy(Y, X),
        TypeError,
        ONE + "`predictions` must be real floating, got int64[3] on numpy. Pass the predictions first, then the labels "
        'or targets; or, of predictions, predictions.astype("float32").',
    ),
    (
        lambda: xent.cross_entropy(np.eye(5, dtype=int)[Y], X),
        TypeError,
        "cross_entropy: `predictions` must be real floating, got int64[3, 5] on numpy. Pass the predictions first, "
        'then the labels or targets; or, of predictions, predictions.astype("float32").',
    ),
    (
        lambda: sparse(labels=np.eye(5)[Y]),
        TypeError,
        ONE + "`labels` must be integers, got float64[3, 5] on numpy. For one-hot or soft targets call cross_entropy.",
    ),
    (
        lambda: sparse(labels=np.asarray(["a", "b", "a"])),
        TypeError,
        ONE + "`labels` must be integers, got str32[3] on numpy. Number the classes: numpy.unique(labels, "
        "return_inverse=True)[1] does so in their order.",
    ),
    (
        lambda: sparse(labels=np.asarray(["a", "b", "a"], object)),
        TypeError,
        ONE + "`labels` must have a numeric dtype, got object[3] on numpy. Number the classes: numpy.unique(labels, "
        "return_inverse=True)[1] does so in their order.",
    ),
    (
        lambda: xent.sparse_cross_entropy(np.zeros((2, 3, 4, 5)), np.zeros((2, 4, 5), int)),
        ValueError,
        ONE + "`labels` must have shape (2, 3, 4) (predictions (2, 3, 4, 5) without axis 3), got (2, 4, 5). "
        "Pass axis=1, if that is the axis of the classes.",
    ),
    (
        lambda: sparse(labels=Y[None]),
        ValueError,
        ONE + "`labels` must have shape (3,) (predictions (3, 5) without axis 1), got (1, 3). Pass labels[0].",
    ),
    (
        lambda: xent.sparse_cross_entropy(np.zeros(3), Y),
        ValueError,
        ONE + "`labels` must have shape () (predictions (3,) without axis 0), got (3,). For targets of the "
        "predictions' shape call cross_entropy, for yes-or-no targets binary_cross_entropy.",
    ),
    (
        lambda: xent.sparse_cross_entropy(np.zeros((3, 1)), np.asarray([0, 1, 0])),
        xent.LabelError,
        ONE + "`labels` must lie in [0, 1), got 1 outside; the first, at position 1, is 1. For one number a row, and "
        "labels 0 and 1, call binary_cross_entropy. Mend them, name them in ignore_index, or give them sample_weight "
        "0.",
    ),
    (
        lambda: torch_call(lambda torch: sparse(torch.zeros((3, 5)), torch.zeros(3, dtype=torch.bool))),
        TypeError,
        ONE + "`labels` must be integers, got bool[3] on torch. Pass labels.to(torch.int64).",
    ),
    (
        lambda: dense(targets=T.astype(np.complex64)),
        TypeError,
        "cross_entropy: `targets` must be real, got complex64[3, 5] on numpy. Pass targets.real.",
    ),
    (
        lambda: sparse(class_weight=np.zeros(5, np.complex64)),
        TypeError,
        ONE + "`class_weight` must be real, got complex64[5] on numpy. Pass class_weight.real.",
    ),
    # -------------------- homes
    (
        lambda: torch_call(lambda torch: sparse(torch.zeros((3, 5)))),
        TypeError,
        ONE + "`labels` must be of the library of `predictions` (torch), got int64[3] on numpy. "
        "Nothing is moved between libraries: convert one of the two.",
    ),
    (
        lambda: torch_call(lambda torch: sparse(torch.zeros((3, 5)), torch.zeros(3, device="meta").long())),
        TypeError,
        ONE + "`labels` must be on the device of `predictions` (cpu), got int64[3] on torch on meta. "
        "Nothing is moved between devices: move one of the two.",
    ),
    # -------------------- axes and keywords
    (
        lambda: sparse(axis=None),
        ValueError,
        ONE + "`axis` must be an integer, got None. Pass the one class axis.",
    ),
    (
        lambda: sparse(np.zeros(()), np.zeros((), np.int64)),
        ValueError,
        ONE + "`predictions` must have a class axis, got a 0-d array. Pass shape (*batch, C).",
    ),
    (
        lambda: sparse(axis=2),
        ValueError,
        ONE + "`axis` must lie in [-2, 2) for predictions of rank 2, got 2. Pass the class axis of the predictions.",
    ),
    (
        lambda: sparse(kind="softmax"),
        ValueError,
        ONE + '`kind` must be "logits", "probabilities" or "log_probabilities", got \'softmax\'. Choose one of them.',
    ),
    (
        lambda: sparse(reduction="average"),
        ValueError,
        ONE + '`reduction` must be "none", "sum" or "mean", or a xent.Mean, got \'average\'. Choose one.',
    ),
    (
        lambda: xent.using(validate="sometimes"),
        ValueError,
        'using: `validate` must be "auto", "always" or "never", got \'sometimes\'. Choose one of them.',
    ),
    (
        lambda: xent.Mean("rows"),
        ValueError,
        'Mean: `denominator` must be "weights", "counted" or "all", or a positive number, got \'rows\'. Choose one.',
    ),
    (
        lambda: xent.Mean(np.asarray(15)),
        ValueError,
        'Mean: `denominator` must be "weights", "counted" or "all", or a positive number, got int64[] on numpy. '
        'Pass float(denominator), or divide the result of reduction="sum" by it.',
    ),
    (
        lambda: xent.Mean(empty=None),
        ValueError,
        "Mean: `empty` must be a number, got None. Pass 0.0, say.",
    ),
    (
        lambda: sparse(reduction=5),
        ValueError,
        ONE + '`reduction` must be "none", "sum" or "mean", or a xent.Mean, got 5. Choose one.',
    ),
    (
        lambda: sparse(label_smoothing=np.asarray(0.5)),
        ValueError,
        ONE + "`label_smoothing` must lie in [0, 1], got float64[] on numpy. Pass float(label_smoothing).",
    ),
    (
        lambda: sparse(label_smoothing=10**400),
        ValueError,
        ONE + f"`label_smoothing` must lie in [0, 1], got {10**400}. Pass a share of 1.",
    ),
    (
        lambda: sparse(label_smoothing=1.5),
        ValueError,
        ONE + "`label_smoothing` must lie in [0, 1], got 1.5. Pass a share of 1.",
    ),
    (
        lambda: sparse(ignore_index="all"),
        ValueError,
        ONE + "`ignore_index` must be an int, an iterable of ints or None, got 'all'. Pass labels.",
    ),
    (
        declined_call,
        NotServed,
        ONE + "`kernel` must be one that serves this call, got 'picky', whose guard declines float32[3, 5] on numpy. "
        "Choose another, or leave it to xent.",
    ),
    # -------------------- shapes
    (
        lambda: sparse(labels=np.zeros((3, 1), np.int64)),
        ValueError,
        ONE + "`labels` must have shape (3,) (predictions (3, 5) without axis 1), got (3, 1). Pass labels[:, 0].",
    ),
    (
        lambda: sparse(labels=np.zeros((3, 5), np.int64)),
        ValueError,
        ONE + "`labels` must have shape (3,) (predictions (3, 5) without axis 1), got (3, 5). "
        "For targets of the predictions' shape call cross_entropy.",
    ),
    (
        lambda: sparse(labels=np.zeros(4, np.int64)),
        ValueError,
        ONE + "`labels` must have shape (3,) (predictions (3, 5) without axis 1), got (4,). Pass labels of shape (3,).",
    ),
    (
        lambda: sparse(np.zeros(5), np.zeros(1, np.int64)),
        ValueError,
        ONE + "`labels` must have shape () (predictions (5,) without axis 0), got (1,). Pass labels[0].",
    ),
    (
        lambda: dense(targets=np.zeros((1, 5))),
        ValueError,
        "cross_entropy: `targets` must have shape (3, 5) (that of the predictions), got (1, 5). "
        "Pass targets of shape (3, 5).",
    ),
    (
        lambda: sparse(sample_weight=np.zeros(5)),
        ValueError,
        ONE + "`sample_weight` must have shape (3,) (one for each row), got (5,). Pass sample_weight of shape (3,).",
    ),
    (
        lambda: binary(sample_weight=np.zeros(3)),
        ValueError,
        "binary_cross_entropy: `sample_weight` must have shape (3, 5) (that of the predictions), got (3,). "
        "Pass sample_weight of shape (3, 5).",
    ),
    (
        lambda: sparse(class_weight=np.zeros(3)),
        ValueError,
        ONE + "`class_weight` must have shape (5,) (one for each class), got (3,). Pass class_weight of shape (5,).",
    ),
    (
        lambda: sparse(class_weight=[1, 2]),
        ValueError,
        ONE + "`class_weight` must have 5 numbers (one for each class), got 2. Pass one for each class.",
    ),
    (
        lambda: binary(pos_weight=np.zeros(3)),
        ValueError,
        "binary_cross_entropy: `pos_weight` must be a number or have shape (5,), got (3,). Pass one for each output.",
    ),
    (
        lambda: sparse(np.zeros((3, 0)), Y),
        ValueError,
        ONE + "`predictions` must have at least one class, got shape (3, 0). Pass C ≥ 1.",
    ),
    # -------------------- the array for a gradient
    (
        lambda: dask_call(lambda da: with_out(X, da.from_array(X))),
        TypeError,
        ONE + "`out` must be None on dask, whose arrays are not written to, got float32[3, 5] on numpy. "
        "Leave it out, and store the gradient that is returned: dask.array.store(gradient, out).",
    ),
    (
        lambda: with_out((X,)),
        TypeError,
        ONE + "`out` must be one array, for there is one gradient, got tuple. Pass the array.",
    ),
    (
        lambda: with_out(X.astype(np.float64)),
        TypeError,
        ONE + "`out` must have the dtype of `predictions` (float32), got float64[3, 5] on numpy. "
        "Pass an array like the predictions.",
    ),
    (
        lambda: with_out(X.astype(X.dtype.newbyteorder())),
        TypeError,
        ONE + "`out` must have the dtype of `predictions` (float32), got float32[3, 5] on numpy in another byte order. "
        "Pass an array like the predictions.",
    ),
    (
        lambda: with_out(X[:2]),
        ValueError,
        ONE + "`out` must have shape (3, 5) (that of the predictions), got (2, 5). Pass out of shape (3, 5).",
    ),
    (
        lambda: torch_call(
            lambda torch: with_out(torch.zeros(3, 5, requires_grad=True), torch.zeros(3, 5), torch.tensor([0, 1, 2]))
        ),
        ValueError,
        ONE + "`out` must require no gradient where torch records them, got float32[3, 5] on torch that does. "
        "Pass out.detach(), which is the same memory, or call under torch.no_grad().",
    ),
    (
        lambda: with_out(toy_library.Shy(X), toy_library.Shy(X), toy_library.Shy(Y)),
        TypeError,
        ONE + "`out` must be an array whose memory can be seen, got float32[3, 5] on toy_library. "
        "Leave it out, and assign the gradient that is returned: out[...] = gradient.",
    ),
    (
        lambda: with_out(read_only(X)),
        ValueError,
        ONE + "`out` must be writable, got float32[3, 5] on numpy that is read-only. Pass a copy.",
    ),
    (
        lambda: with_out(np.lib.stride_tricks.as_strided(np.zeros(9, np.float32), (3, 5), (8, 4))),
        ValueError,
        ONE + "`out` must have a place of its own for each element, got float32[3, 5] on numpy whose strides may "
        "bring two to one place. Pass a copy.",
    ),
    (
        lambda: with_out(lambda x: x[::-1]),
        ValueError,
        ONE + "`out` must share no memory with `predictions`, or be the same memory element for element, "
        "got float32[3, 5] on numpy that overlaps them. Pass the predictions themselves, or an array of its own.",
    ),
    (
        output_over_the_targets,
        ValueError,
        "cross_entropy: `out` must share no memory with `targets`, got float32[3, 5] on numpy that does. "
        "Pass an array of its own, or the predictions themselves.",
    ),
    (
        lambda: torch_call(output_in_vmap),
        TypeError,
        ONE + "`out` must be None where torch traces or transforms the call, got float32[3, 5] on torch. "
        "Leave it out: the compiler plans the memory.",
    ),
    # -------------------- labels
    (
        lambda: sparse(labels=np.asarray([0, 7, -1])),
        xent.LabelError,
        ONE + "`labels` must lie in [0, 5), got 2 outside; the first, at position 1, is 7. "
        "Mend them, name them in ignore_index, or give them sample_weight 0.",
    ),
    (
        lambda: sparse(np.zeros((2, 2, 5)), np.asarray([[0, 1], [2, 5]])),
        xent.LabelError,
        ONE + "`labels` must lie in [0, 5), got 1 outside; the first, at position (1, 1), is 5. "
        "Mend them, name them in ignore_index, or give them sample_weight 0.",
    ),
    (
        lambda: dask_call(lambda da: sparse(da.from_array(X, (2, 5)), np.asarray([0, 1, 9])).compute()),
        xent.LabelError,
        ONE + "`labels` must lie in [0, 5), got 1 outside in one chunk; the first, at position 2, is 9. "
        "Mend them, name them in ignore_index, or give them sample_weight 0.",
    ),
    (
        lambda: dask_call(
            lambda da: sparse(unknown_rows(da, X, (2, 5)), unknown_rows(da, np.asarray([0, 1, 9]), (2,))).compute()
        ),
        xent.LabelError,
        ONE + "`labels` must lie in [0, 5), got 1 outside in one chunk; the first, at row 0 of chunk 1, is 9. "
        "Mend them, name them in ignore_index, or give them sample_weight 0.",
    ),
    # -------------------- Dask
    (
        lambda: dask_call(
            lambda da: sparse(da.from_array(X, 2).map_blocks(pytest.importorskip("scipy.sparse").csr_array))
        ),
        TypeError,
        ONE + "`predictions` must have chunks of an array library, got dask of others. "
        "Convert each chunk, to a NumPy array for instance.",
    ),
    (
        symbolic_call,
        ValueError,
        ONE + "`predictions` must have a fixed number of classes, got shape (rows, classes). "
        "Write the classes of the symbolic shape as a number; the rows may be symbols.",
    ),
    (
        lambda: dask_call(lambda da: sparse(unknown_rows(da, X.T, (2, 3)), np.zeros(3, np.int64), axis=0)),
        ValueError,
        ONE + "`predictions` must have a known number of classes, got shape (nan, 3). "
        "Call predictions.compute_chunk_sizes() first.",
    ),
    (
        lambda: dask_call(lambda da: sparse(unknown_rows(da, X, (2, 5)), da.from_array(Y, 3))),
        ValueError,
        ONE + "`labels` must have 2 chunks, as the predictions have where the number of rows is not known, got 1. "
        "Pass a Dask array cut like the predictions, or call compute_chunk_sizes() of both first.",
    ),
    (
        lambda: dask_call(
            lambda da: sparse(unknown_rows(da, X, (2, 5)), unknown_rows(da, np.zeros(4, np.int64), (2,))).compute()
        ),
        ValueError,
        ONE + "`labels` must have shape (1,) in chunk 1, as the predictions there, got (2,). "
        "Cut both into the same rows.",
    ),
    # -------------------- products
    (
        lambda: dense(product(), product()),
        TypeError,
        "cross_entropy: `targets` must be an array, got a xent.Linear, whose logits are never whole. "
        "Pass hidden @ classifier.T.",
    ),
    (
        lambda: product() + 1,
        TypeError,
        "Linear: `logits` must be an array, got a xent.Linear, whose logits are never whole. "
        "Pass hidden @ classifier.T.",
    ),
    (
        lambda: xent.linear_cross_entropy(product(), H, np.zeros(3, int)),
        TypeError,
        "Linear: `hidden` must be an array, got a xent.Linear. Call sparse_cross_entropy, which takes it.",
    ),
    (
        lambda: xent.gradient(product(), H, labels=np.zeros(3, int)),
        TypeError,
        "gradient: `whole` must be a xent.Partial, got numpy.ndarray. Call xent.partial.",
    ),
    (
        lambda: product(H.astype(int)),
        TypeError,
        'Linear: `hidden` must be real floating, got int64[3, 4] on numpy. Pass hidden.astype("float32").',
    ),
    (
        lambda: product(np.float32(1)),
        ValueError,
        "Linear: `hidden` must have an axis of features, got a 0-d array. Pass (*batch, D).",
    ),
    (
        lambda: product(H, np.zeros((4, 5), np.float32)),
        ValueError,
        "Linear: `classifier` must have shape (C, 4) (the hidden states are (3, 4)), got (4, 5). Pass classifier.T.",
    ),
    (
        lambda: product(H, np.zeros(5, np.float32)),
        ValueError,
        "Linear: `classifier` must have shape (C, 4) (the hidden states are (3, 4)), got (5,). "
        "Pass one row of 4 numbers for each class.",
    ),
    (
        lambda: product(H, np.zeros((0, 4), np.float32)),
        ValueError,
        "Linear: `classifier` must have at least one class, got shape (0, 4). Pass C ≥ 1.",
    ),
    (
        lambda: product(H, W, bias=np.zeros(4, np.float32)),
        ValueError,
        "Linear: `bias` must have shape (5,) (one for each class), got (4,). Pass bias of shape (5,).",
    ),
    (
        lambda: product(softcap=0),
        ValueError,
        "Linear: `softcap` must be a positive number, got 0. Leave it out for logits without a cap.",
    ),
    (
        lambda: product(softcap=1e39),
        ValueError,
        "Linear: `softcap` must lie in [1.18e-38, 3.4e+38] for float32 logits, got 1e+39. "
        "Leave it out for logits without a cap.",
    ),
    (
        lambda: product(softcap=10**400),
        ValueError,
        f"Linear: `softcap` must lie in [1.18e-38, 3.4e+38] for float32 logits, got {10**400}. "
        "Leave it out for logits without a cap.",
    ),
    (
        lambda: product(softcap=np.asarray(2.0)),
        ValueError,
        "Linear: `softcap` must be a positive number, got float64[] on numpy. Pass float(softcap).",
    ),
    (
        lambda: xent.softmax(product(bias=B)),
        TypeError,
        "softmax: `logits` must be an array, got a xent.Linear, whose logits are never whole. "
        "Pass hidden @ classifier.T + bias.",
    ),
    (
        lambda: xent.log_softmax(product(softcap=30)),
        TypeError,
        "log_softmax: `logits` must be an array, got a xent.Linear, whose logits are never whole. "
        "Pass 30.0 * tanh((hidden @ classifier.T) / 30.0).",
    ),
    (
        lambda: binary(product(), T),
        TypeError,
        "binary_cross_entropy: `predictions` must be an array, got a xent.Linear, whose classes "
        "exclude each other. Pass hidden @ classifier.T.",
    ),
    (
        lambda: sparse(product(), kind="probabilities"),
        ValueError,
        "sparse_cross_entropy: `kind` must be \"logits\" for a xent.Linear, got 'probabilities'. Leave it out.",
    ),
    (
        lambda: sparse(product(), axis=0),
        ValueError,
        "sparse_cross_entropy: `axis` must be the last for a xent.Linear, got 0. Leave it out: "
        "the classes are the rows of the classifier.",
    ),
    (
        lambda: xent.value_and_grad(xent.sparse_cross_entropy)(product(), Y, out=H),
        TypeError,
        "sparse_cross_entropy: `out` must be None for a xent.Linear, which has several gradients, "
        "got float32[3, 4] on numpy. Leave it out, and take the gradients that are returned.",
    ),
    (
        lambda: xent.value_and_grad(xent.linear_cross_entropy, of="logits"),
        ValueError,
        'value_and_grad: `of` must be "hidden", "classifier" or "bias", or several, got \'logits\'. Choose from them.',
    ),
    (
        lambda: xent.value_and_grad(xent.sparse_cross_entropy, of="hidden")(X, Y),
        TypeError,
        "value_and_grad: `of` must be None unless the predictions are a xent.Linear, got 'hidden' "
        "for float32[3, 5] on numpy. Leave it out, or call linear_cross_entropy.",
    ),
    (
        lambda: xent.value_and_grad(xent.linear_cross_entropy, of="bias")(H, W, Y),
        ValueError,
        'value_and_grad: `of` must name operands that are there, got "bias" without one. Leave it out.',
    ),
    (
        lambda: xent.explain(xent.linear_cross_entropy, H, Y),
        TypeError,
        "linear_cross_entropy: `hidden`, `classifier`, `labels` must be given by position, got 2 "
        "arguments. Pass 3, and all else by keyword.",
    ),
    (
        lambda: dask_call(lambda da: sparse(product(H, da.from_array(W)[da.from_array(B) < 1]))),
        ValueError,
        "sparse_cross_entropy: `classifier` must have a known number of rows, got shape (nan, 4). "
        "Call classifier.compute_chunk_sizes() first.",
    ),
    # -------------------- value_and_grad, explain, partial, one_hot
    (
        lambda: xent.value_and_grad(len),
        TypeError,
        'value_and_grad: `loss` must be "sparse_cross_entropy", "cross_entropy", "linear_cross_entropy" or '
        '"binary_cross_entropy" of xent, or a functools.partial of one, got <built-in function len>. Pass one.',
    ),
    (
        lambda: xent.explain(len, X, Y),
        TypeError,
        'explain: `loss` must be "sparse_cross_entropy", "cross_entropy", "linear_cross_entropy" or '
        '"binary_cross_entropy" of xent, or a functools.partial of one, got <built-in function len>. Pass one.',
    ),
    (
        lambda: xent.value_and_grad(functools.partial(xent.cross_entropy, X)),
        TypeError,
        "value_and_grad: `loss` must bind keywords only, got 1 positional. Pass them in the call.",
    ),
    (
        lambda: xent.value_and_grad(xent.cross_entropy)(X, T, ignore_index=3),
        TypeError,
        "cross_entropy: `ignore_index` must be a keyword of it, got an unknown one. "
        "Choose from axis, kind, reduction, sample_weight, class_weight, label_smoothing.",
    ),
    (
        lambda: xent.partial(X),
        ValueError,
        "partial: one of `labels` and `targets` must be given, got neither. Pass one of them.",
    ),
    (
        lambda: xent.partial(X, labels=Y, targets=T),
        ValueError,
        "partial: one of `labels` and `targets` must be given, got both. Pass one of them.",
    ),
    (
        lambda: xent.partial(X, labels=Y, first_class=-1),
        ValueError,
        "partial: `first_class` must be an int ≥ 0, got -1. Pass a number of classes.",
    ),
    (
        lambda: xent.partial(X, labels=Y, num_classes=2.0),
        ValueError,
        "partial: `num_classes` must be an int ≥ 1, got 2.0. Pass a number of classes.",
    ),
    (
        lambda: xent.partial(X, labels=Y, first_class=2, num_classes=6),
        ValueError,
        "partial: `num_classes` must be at least 7 for 5 classes from 2 on, got 6. "
        "Pass the number of classes of all slices.",
    ),
    (
        lambda: xent.partial(X, labels=Y, first_class=2, label_smoothing=0.1),
        ValueError,
        "partial: `num_classes` must be given where targets are smoothed, got None. "
        "Pass the number of classes of all slices.",
    ),
    (
        lambda: xent.one_hot(Y, 0),
        ValueError,
        "one_hot: `num_classes` must be an int ≥ 1, got 0. Pass the number of classes.",
    ),
    (
        lambda: xent.logsumexp(X, keepdims="no"),
        TypeError,
        "logsumexp: `keepdims` must be True or False, got 'no'. Pass one of the two.",
    ),
    (
        lambda: xent.one_hot(Y, 3, on_value="1"),
        TypeError,
        "one_hot: `on_value` must be a number, got '1'. Pass a number.",
    ),
    (
        lambda: xent.one_hot(Y, 3, dtype="int99"),
        TypeError,
        "one_hot: `dtype` must be a dtype of numpy that holds the values, got 'int99'. Leave it out for float32.",
    ),
    (
        lambda: xent.one_hot(Y, 3, axis=5),
        ValueError,
        "one_hot: `axis` must lie in [-2, 2) for the result of rank 2, got 5. Pass the class axis of the result.",
    ),
    (
        lambda: sparse(class_weight=[[1, 2, 3, 4, 5]]),
        TypeError,
        ONE + "`class_weight` must be an array or a list of numbers, got list. Pass one number for each class.",
    ),
    (
        lambda: dense(targets=Y),
        ValueError,
        "cross_entropy: `targets` must have shape (3, 5) (that of the predictions), got (3,). "
        "For labels call sparse_cross_entropy.",
    ),
    (
        lambda: xent.finish(X),
        TypeError,
        "finish: `partial` must be a xent.Partial, got numpy.ndarray. Call xent.partial.",
    ),
    (
        lambda: xent.merge(xent.partial(X, labels=Y), xent.partial(X[:1], labels=Y[:1])),
        ValueError,
        "merge: `partial` must be of the rows of the first, (3,), got (1,). "
        "Take every slice of the classes from the same rows.",
    ),
    (
        lambda: xent.using(kernel=["numpy"]),
        ValueError,
        "using: `kernel` must be a name, got ['numpy']. See xent.plugins().",
    ),
    (
        lambda: xent.using(prefer=5),
        ValueError,
        "using: `prefer` must be a name or several, got 5. See xent.plugins().",
    ),
    (
        lambda: xent.register(object(), "xent.mine"),
        ValueError,
        "register: `name` must be a name that does not begin with xent., got 'xent.mine'. Use another.",
    ),
    (
        lambda: xent.register(object(), "mine"),
        ValueError,
        "register: `plugin` must have hooks, got object. Mark them with xent.hookimpl.",
    ),
    (
        lambda: xent.SparseTargets(T[:, :2], IDS),
        TypeError,
        "SparseTargets: `ids` must be integers, got float32[3, 2] on numpy. Pass the ids before the weights.",
    ),
    (
        lambda: xent.SparseTargets(T, T),
        TypeError,
        'SparseTargets: `ids` must be integers, got float32[3, 5] on numpy. Pass ids.astype("int64").',
    ),
    (
        lambda: xent.SparseTargets(IDS[0, 0], T[0, 0]),
        ValueError,
        "SparseTargets: `ids` must have shape (*batch, k), got a 0-d array. Pass ids[None].",
    ),
    (
        lambda: xent.SparseTargets(IDS, T),
        ValueError,
        "SparseTargets: `weights` must have shape (3, 2) (that of the ids), got (3, 5). Pass weights of shape (3, 2).",
    ),
    (
        lambda: xent.SparseTargets(IDS, T[:, :2], tail=T),
        ValueError,
        "SparseTargets: `tail` must have shape (3,) (one for each row), got (3, 5). Pass tail of shape (3,).",
    ),
    (
        lambda: dense(X[:2], few()),
        ValueError,
        "cross_entropy: `targets` must be of the rows of the predictions, (2,), got (3,). "
        "Make the SparseTargets of ids, weights and a tail of these rows.",
    ),
    (
        lambda: dense(X, few(tail=T[:, 0]), class_weight=[1.0] * 5),
        ValueError,
        "cross_entropy: `class_weight` must be left out for targets with a tail, which is several classes, got "
        "[1.0, 1.0, 1.0, 1.0, 1.0]. Put it into the weights of the targets.",
    ),
    (
        lambda: dense(X, few(tail=T[:, 0]), label_smoothing=0.1),
        ValueError,
        "cross_entropy: `label_smoothing` must be left out for targets with a tail, which is several classes, got 0.1. "
        "Put it into the weights of the targets.",
    ),
    (
        lambda: dense(X, few(tail=T[:, 0]), kind="probabilities"),
        ValueError,
        "cross_entropy: `kind` must be \"logits\" for targets with a tail, got 'probabilities'. "
        "Pass logits, or log-probabilities as logits.",
    ),
    (
        lambda: xent.partial(X, targets=few(tail=T[:, 0])),
        ValueError,
        "partial: `targets` must have no tail for a slice of the classes, got one. "
        "Call cross_entropy on all classes, or leave the tail out.",
    ),
    (
        lambda: sparse(X, few()),
        TypeError,
        ONE + "`labels` must be an array, got a xent.SparseTargets. Call cross_entropy, which takes it.",
    ),
    (
        lambda: dense(X, few(IDS + 7, T[:, :2] + 1)),
        xent.LabelError,
        "cross_entropy: `targets.ids` must lie in [0, 5) where their weight is not 0, got 6 outside; the first, at "
        "position (0, 0), is 7. Mend them, or give them weight 0.",
    ),
]


def error_of(call):
    with pytest.raises((TypeError, ValueError)) as caught:
        call()
    return caught.value


@pytest.mark.parametrize(("call", "kind", "message"), CASES, ids=[message[:60] for *_, message in CASES])
def test_the_message_says_what_must_hold_what_was_there_and_what_to_do(call, kind, message):
    error = error_of(call)

    assert str(error) == message
    assert type(error) is kind


def raises_of_checks():
    """The file and the lines of each raise in checks/."""
    files = sorted(Path(checks.__file__).parent.glob("*.py"))
    trees = {str(file): ast.parse(file.read_text(encoding="utf-8")) for file in files}
    return [
        (file, range(node.lineno, node.end_lineno + 1))
        for file, tree in trees.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.Raise)
    ]


def test_every_raise_of_checks_has_its_case_here():
    reached = set()
    for call, *_ in CASES:
        frames = traceback.extract_tb(error_of(call).__traceback__)
        reached |= {(frame.filename, frame.lineno) for frame in frames}
    missed = [f"{file}:{lines[0]}" for file, lines in raises_of_checks() if not reached & {(file, n) for n in lines}]

    assert not missed, f"no case reaches the raise at {missed}"


def test_messages_never_show_what_is_in_an_array():
    error = error_of(lambda: sparse(np.full((3, 5), 123456789)))

    assert "123456789" not in str(error)


@pytest.mark.parametrize(("call", "kind", "message"), CASES, ids=[message[:60] for *_, message in CASES])
def test_a_message_names_its_function_and_ends_with_a_remedy(call, kind, message):
    function, _, rest = message.partition(": ")

    assert hasattr(xent, function)
    assert rest.count(". ") >= 1
    assert message.endswith(".")
