"""Evaluations of prediction sets of any size, as users ask for them: :func:`evaluate` one, :func:`compare` two,
:func:`compare_all` several;
:func:`merge_parts` puts together what independent jobs have made of either.

Leaves out the pass (``engine/``) and how a result is shown (``report/``).
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any

from xent.checks import Kind, flag
from xent.evaluation.engine.compare_pass import plan_pair
from xent.evaluation.engine.evaluate_pass import plan
from xent.evaluation.engine.kinds import warn_of_kind
from xent.evaluation.engine.named_dimensions import class_axis
from xent.evaluation.engine.pairwise_pass import plan_pairwise
from xent.evaluation.engine.stream import Stream, check_stream
from xent.evaluation.engine.work import Progress
from xent.evaluation.options import (
    CHUNK_BYTES,
    Ignored,
    Keys,
    Options,
    Outputs,
    Policy,
    Rows,
    bytes_of_all,
    bytes_of_rows,
    folders_of,
    ignored_labels,
    ranks_of,
)
from xent.evaluation.report.result import ComparisonReport, EvaluationReport, PairwiseReport, sets_of
from xent.evaluation.report.running import merged_report, run_pass, run_stream
from xent.evaluation.sources.hidden_states import Head
from xent.evaluation.sources.slice_columns import slice_keys
from xent.evaluation.sources.storage_options import StorageOptions, storage_options_set
from xent.evaluation.sources.unopened import shards_checked

__all__ = ["compare", "compare_all", "evaluate", "merge_parts"]


def evaluate(
    predictions: Any,
    labels: Any = None,
    *,
    classifier: Any = None,
    bias: Any = None,
    softcap: float | None = None,
    kind: Kind = "logits",
    axis: int | str = -1,
    binary: bool = False,
    strict_kind: bool = False,
    class_names: Any = None,
    ignore_index: Ignored = None,
    on_bad_label: Policy = "error",
    on_error: Policy = "error",
    clusters: Any = None,
    slices: Any = None,
    cross: Iterable[Any] = (),
    weights: Any = None,
    mask: Any = None,
    by_class: bool = False,
    top_k: int | Iterable[int] = (),
    bins: int = 15,
    classwise: bool = False,
    calibration: bool = False,
    confusion: bool = False,
    auc: bool = False,
    fit_temperature: bool = False,
    predicted_bytes: Any = None,
    per_example: Any = None,
    overwrite: bool = False,
    state: Any = None,
    rows: Rows | None = None,
    state_out: Any = None,
    chunk_bytes: int = CHUNK_BYTES,
    zeros_ok: bool = False,
    allow_outside: str | os.PathLike[str] | Iterable[str | os.PathLike[str]] = (),
    storage_options: StorageOptions | None = None,
    check_shards: bool = False,
    scheduler: Any = None,
    progress: Progress | None = None,
) -> EvaluationReport:
    r"""Loss, accuracy, calibration and their errors of a prediction set of any size, in one pass.

    .. math:: \bar\ell = \frac1n \sum_i \ell_i, \qquad
              s^2 = \frac{1}{n (n-1)} \sum_i (\ell_i - \bar\ell)^2

    over the n counted rows; s is the standard error. With weights w they are :math:`\sum w \ell / \sum w` and
    :math:`\sqrt{n / (n - 1) \sum w^2 (\ell - \bar\ell)^2} / \sum w`. The sums are exact, so the result is the same bits
    for any `chunk_bytes`, any scheduler and any number of workers.

    Parameters
    ----------
    predictions : str, os.PathLike, numpy.ndarray or dask.array.Array, shape (*batch, C), real floating
        A path or URL is that of a file in .npy, .npz, safetensors, Zarr, HDF5, netCDF, Parquet, Arrow, CSV, JSON lines,
        torch or raw format, of a folder of such files or a glob of them, opened by each task for its own rows; after a
        ``#`` it may name an array of the file, columns, or a dtype and shape: docs/evaluation.md. Also arrays of other
        libraries that NumPy can see, and :class:`~xent.evaluation.sources.TopK`. Without `labels` an iterable of
        blocks that are evaluated in turn, pairs of predictions and labels, or mappings of "predictions", "labels", and
        "slices", "clusters", "weights" and "mask" as they are wanted; arguments that need all rows first, or twice,
        are refused.
    labels : the same, shape (*batch,), integer, in ``[0, C)``, or text, or true and false of two classes
        Text is the name of a class. The rows of a batch of several dimensions are counted in C order.
        Of the shape of the predictions they are distributions, one-hot or soft: the loss is −Σ t log p, and what needs
        one label takes the class of the largest t.
    classifier : as `predictions`, shape (C, D), real floating, optional
        The predictions are hidden states then, (*batch, D), and the logits are ``hidden @ classifier.T``, made a tile
        at a time and never stored: the last layer of a model, such as ``"model.safetensors#lm_head.weight"``. It is
        opened once in a process, and mapped where it is a local file in C order.
        :class:`xent.Linear` as the predictions says the same.
    bias : as `predictions`, shape (C,), real floating, optional
        Added to these logits; −inf masks a class.
    softcap : number > 0, optional
        Logits z of hidden states, the bias included, become softcap · tanh(z / softcap).
    kind : {"logits", "probabilities", "log_probabilities"}
        What the predictions are. Rows of probabilities that do not sum to 1 are counted, and taken as they are. Logits
        that look like probabilities, every row in [0, 1] with the sum 1, are warned of.
    axis : int
        Where the classes are in the predictions: 1 of (N, C, H, W), whose labels are (N, H, W). Of hidden states where
        the features are.
    binary : bool
        Whether the predictions are of class 1 of two alone: a logit, or by `kind` a probability or its logarithm, for
        each label, which is 0 or 1, or false or true.
    strict_kind : bool
        Whether logits that look like probabilities are an error.
    class_names : iterable of str, mapping, path, or None
        The name of each class, in their order, or a mapping of names to numbers or of numbers to names; a file of
        either as JSON, or of one name in each line; or "columns", where the predictions are columns of a table that
        are named as the classes (of a glob such as ``#p_*`` what the star stands for). They stand in the result in
        place of numbers, and labels that are text are looked up in them; so are integers if every name is one.
    ignore_index : int, str, iterable of them, or None
        Labels of rows to leave out, whatever their predictions hold.
    on_bad_label : {"error", "skip"}
        Whether a label outside ``[0, C)`` that is not ignored is an error, or a row to count and leave out.
    on_error : {"error", "skip"}
        Whether rows that cannot be read are an error, or are counted and left out.
    clusters : as the labels, integers or text, optional
        The cluster of each row, the document of a token for instance: the standard errors then take clusters as
        independent instead of rows. Of clusters whose rows lie beside each other the memory is constant.
    slices : as the labels, integers or text, optional
        The slice of each row, for a table of them. Slices, clusters, weights and a mask may also have the first sizes
        of the labels' shape alone: of labels (batch, sequence) those of shape (batch,) are of all tokens of a sequence.
        Several columns are a mapping of their names to them.
    cross : iterable, optional
        Which of several columns of slices are crossed: names with a comma between them, or tuples of names.
    weights : as the labels, real numbers in [0, 2**64], or true and false, optional
        The weight of each row in every mean, share and sum; a row of weight 0 is left out, whatever it holds.
    mask : as the labels, true and false, or integers, optional
        Whether a row counts, as an attention mask says of tokens; one of false or 0 is ignored, whatever it holds.
    by_class : bool
        Whether to make a table of the labels.
    top_k : int or iterable of int
        The k of top-k accuracies.
    bins : int
        How many bins of equal width the calibration has.
    classwise : bool
        Whether to compute the calibration of the probability of each class too, a :class:`ClasswiseCalibration`, which
        reads each probability a second time.
    calibration : bool
        Whether to keep the confidences, for the calibration error in bins of as many rows each and the smooth
        calibration error. Exact for up to 65,536 different confidences; else bounds of the errors are told.
    confusion : bool
        Whether to count which class was predicted for which label: a :class:`Confusion` with precision, recall and F1
        of each class, their means, balanced accuracy, Cohen's kappa and Matthews's coefficient. Memory grows with the
        pairs that occur, some 250 bytes for each. Rows whose label is not the highest are read a second time.
    auc : bool
        Whether to tell how well predictions rank the rows of a class above the others: a :class:`Ranking` with ROC AUC,
        average precision, KS and gains, of class 1 of two, else of each class against the rest. Exact for up to 65,536
        different scores of a class (2**20 of all classes together); else scores share bins, and bounds of the errors
        are told. Predictions are read a second time.
    fit_temperature : bool
        Whether to fit the temperature that minimises the loss, in some six to twelve more passes.
    predicted_bytes : int, or as the labels, integers, optional
        How many bytes of text the counted rows stand for, for bits per byte; or those of each row, such as a token, for
        bits per byte of slices too. Where they are known of whole texts, the first row of a text has them, others 0.
    chunk_bytes : int
        Bytes of predictions in a task, at most, unless a stored Zarr chunk is larger. Peak memory is about twice this
        for each thread. The chunks of a Dask array are kept as they are.
    zeros_ok : bool
        Whether chunks of Zarr arrays that are not stored hold the fill value, as zarr leaves them out where they hold
        nothing else; they are counted in the result.
    allow_outside : path or iterable of paths
        Folders in which parts of a set may lie that it names itself (a symbolic link in a folder, a link, a virtual
        source or raw storage of an HDF5 file). Without them nothing outside of a set's own folder is read.
    storage_options : mapping, optional
        Options of the file systems behind URLs, those of fsspec's packages: ``{"anon": True}`` of s3fs, credentials
        and endpoints. One that names a protocol, ``{"s3": {...}}``, holds for its URLs alone. They go to the tasks with
        the sources, and into no result, state or message.
    check_shards : bool
        Whether to open every file of a set in many files before the run. Else of more than 64 files only the first is
        opened, where an index (:func:`xent.index_shards`), or the sizes of .npy and raw files, tell the rows of the
        others: the task that reads one finds out whether it is like the first, and raises ValueError if it is not.
    per_example : path, optional
        Where to write the loss of every row, NaN where it is left out: a .npy or .parquet file, or a .zarr array.
    overwrite : bool
        Whether `per_example` and `state_out` may be there already.
    state : path, optional
        A directory in which finished chunks are kept, so that the same call goes on where an interrupted one was.
    rows : pair of int, optional
        Of which rows the numbers are, the first and the one after the last, or None for the end; all by default.
    state_out : path, optional
        A .json file for :func:`merge_parts`, which holds the sums of these rows. A job that makes such a part is told
        its `rows`, and all else as for the whole set, `predicted_bytes` too.
    scheduler : None, "threads", "sync", "processes", "tcp://host:8786", path of a scheduler file, Client or callable
        Where the tasks run. None is as in Dask: what its configuration says (``dask.config.set(scheduler=...)``), else
        the active ``distributed.Client``, else threads of this process; the command line takes the address of a
        scheduler from there first (DASK_SCHEDULER_ADDRESS). "processes:2" starts two processes on this machine. A
        callable is the ``get`` of a scheduler of Dask's, as other packages have. Arrays that a cluster holds
        (``persist``) are evaluated there, and need its Client.
    progress : callable, optional
        Called with the number of rows of each chunk as it finishes, in the calling thread.

    Returns
    -------
    EvaluationReport
        An :class:`Evaluation`, losses in nats, that shows and saves itself: ``print(result)`` writes what the command
        line does, a notebook shows its plots; ``to_dict()``, ``to_json(path)``, ``to_html(path)``,
        ``to_parquet(folder)``.

    Raises
    ------
    FileNotFoundError, FileExistsError, TypeError, ValueError
        Before any work: a missing file, an output that is there, or a shape, dtype, option or state that cannot be.
    LabelError
        After the pass, if labels are bad and `on_bad_label` is "error": how many, the first row and its label.
    KindError
        After the pass, if probabilities are above 1 beyond rounding and `on_error` is "error", or under `strict_kind`.
    ReadError
        If a file is truncated, corrupt, or changes while it is read, or, before any work, if an array lacks chunks or
        a set names files outside of its folder.
    ConnectionError
        If no scheduler answers, or the cluster is gone before the work is done.
    ModuleNotFoundError
        If dask, or zarr for a Zarr array, is not installed.
    WriteError
        If an output or a state cannot be written, or another run uses the state; where the pass was done by then, its
        ``result`` is the Evaluation. It is an OSError.

    Notes
    -----
    A row that is NaN makes the mean NaN; without one, a row of loss +inf makes it +inf. `nan_rows` and `infinite_rows`
    count them and `first_nan` and `first_infinite` name them. The standard error takes rows as independent, which the
    tokens of one text are not.

    zarr does not write a chunk of nothing but the fill value unless told to (``write_empty_chunks=True`` in its
    config), so a chunk left out on purpose looks like one that was lost. Both are refused, of predictions, labels,
    slices and clusters alike, unless `zeros_ok` says what they hold.

    Examples
    --------
    Uniform logits over four classes cost log 4 nats, every time.

    >>> import numpy as np
    >>> result = evaluate(np.zeros((3, 4), np.float32), np.asarray([0, 1, 2]))
    >>> round(result.perplexity, 6), result.standard_error, result.counted
    (4.0, 0.0, 3)
    """
    options = Options(
        kind=kind,
        axis=class_axis(predictions, axis),
        binary=binary,
        strict_kind=strict_kind,
        ignore_index=ignored_labels(ignore_index),
        on_bad_label=on_bad_label,
        on_error=on_error,
        top_k=ranks_of(top_k),
        bins=bins,
        by_class=by_class,
        classwise=classwise,
        calibration=calibration,
        confusion=confusion,
        auc=auc,
        predicted_bytes=bytes_of_all(predicted_bytes),
        chunk_bytes=chunk_bytes,
        zeros_ok=zeros_ok,
        allow_outside=folders_of(allow_outside),
    )
    keys = Keys(slice_keys(slices, cross), clusters, weights, mask, bytes_of_rows(predicted_bytes))
    outputs = Outputs(per_example, overwrite, state, state_out)
    head = Head(classifier, bias, softcap)
    with storage_options_set(storage_options), shards_checked(check_shards):
        if labels is None:
            unfit: dict[str, Any] = {"scheduler": scheduler, "fit_temperature": fit_temperature, "rows": rows}
            check_stream(predictions, keys, outputs, **unfit)
            evaluation = run_stream(Stream(predictions, options, class_names, head), progress)
        else:
            wanted: dict[str, Any] = {"class_names": class_names, "fit_temperature": fit_temperature, "head": head}
            planned = plan(predictions, labels, options, keys=keys, outputs=outputs, rows=rows, **wanted)
            evaluation = run_pass(planned, scheduler=scheduler, progress=progress)
    warn_of_kind(predictions=evaluation)
    return evaluation


def compare(
    a: Any,
    b: Any,
    labels: Any,
    *,
    classifier: Any = None,
    bias: Any = None,
    softcap: float | None = None,
    classifier_b: Any = None,
    bias_b: Any = None,
    softcap_b: float | None = None,
    kind: Kind = "logits",
    kind_b: Kind | None = None,
    axis: int | str = -1,
    binary: bool = False,
    strict_kind: bool = False,
    class_names: Any = None,
    ignore_index: Ignored = None,
    on_bad_label: Policy = "error",
    on_error: Policy = "error",
    clusters: Any = None,
    slices: Any = None,
    cross: Iterable[Any] = (),
    weights: Any = None,
    mask: Any = None,
    overwrite: bool = False,
    state: Any = None,
    rows: Rows | None = None,
    state_out: Any = None,
    chunk_bytes: int = CHUNK_BYTES,
    zeros_ok: bool = False,
    allow_outside: str | os.PathLike[str] | Iterable[str | os.PathLike[str]] = (),
    storage_options: StorageOptions | None = None,
    check_shards: bool = False,
    scheduler: Any = None,
    progress: Progress | None = None,
) -> ComparisonReport:
    """The difference of the losses of two prediction sets on the same labels, and its error, in one pass.

    Parameters
    ----------
    a, b : as the predictions of :func:`xent.evaluate`, shape (*batch, C)
        Their dtypes and formats may differ.
    classifier, bias, softcap : as in :func:`xent.evaluate`
        Of A, and of B too where it has no `classifier_b`.
    classifier_b, bias_b, softcap_b : the same of B
        A set of logits beside one of hidden states is A, without a classifier.
    kind_b : the kinds of :func:`xent.evaluate`, or None
        What the predictions of B are; None for what those of A are.
    labels, kind, axis, binary, strict_kind, class_names, ignore_index, on_bad_label : as in :func:`xent.evaluate`
    on_error, clusters, slices, cross, weights, mask : as in :func:`xent.evaluate`
    zeros_ok, allow_outside, storage_options, check_shards : as in :func:`xent.evaluate`
    overwrite, state, rows, state_out : as in :func:`xent.evaluate`
    scheduler, progress : as in :func:`xent.evaluate`
    chunk_bytes : int
        Bytes of A in a task; the rows of a task are those of A's chunks.

    Returns
    -------
    ComparisonReport
        A :class:`Comparison` that shows and saves itself, as the result of :func:`xent.evaluate` does.

    Raises
    ------
    FileNotFoundError, TypeError, ValueError, LabelError, ReadError, ConnectionError, ModuleNotFoundError
        As :func:`xent.evaluate` does; ValueError too if the two have not the same shape.

    Examples
    --------
    >>> import numpy as np
    >>> sure, unsure = np.array([[3.0, 0.0], [0.0, 3.0]]), np.zeros((2, 2))
    >>> comparison = compare(sure, unsure, np.array([0, 1]))
    >>> comparison.better, round(comparison.mean_difference, 4)
    (2, -0.6446)
    """
    options = Options(
        kind=kind,
        kind_b=kind_b,
        axis=class_axis(a, axis),
        binary=binary,
        strict_kind=strict_kind,
        ignore_index=ignored_labels(ignore_index),
        on_bad_label=on_bad_label,
        on_error=on_error,
        chunk_bytes=chunk_bytes,
        zeros_ok=zeros_ok,
        allow_outside=folders_of(allow_outside),
    )
    keys, outputs = Keys(slice_keys(slices, cross), clusters, weights, mask), Outputs(None, overwrite, state, state_out)
    heads = Head(classifier, bias, softcap), Head(classifier_b, bias_b, softcap_b, "_b")
    with storage_options_set(storage_options), shards_checked(check_shards):
        wanted: dict[str, Any] = {"class_names": class_names, "heads": heads, "rows": rows}
        planned = plan_pair(a, b, labels, options, keys=keys, outputs=outputs, **wanted)
        comparison = run_pass(planned, scheduler=scheduler, progress=progress)
    warn_of_kind(a=comparison.a, b=comparison.b)
    return comparison


def compare_all(
    sets: Iterable[Any],
    labels: Any,
    *,
    classifier: Any = None,
    bias: Any = None,
    softcap: float | None = None,
    kind: Kind = "logits",
    axis: int | str = -1,
    binary: bool = False,
    strict_kind: bool = False,
    class_names: Any = None,
    ignore_index: Ignored = None,
    on_bad_label: Policy = "error",
    on_error: Policy = "error",
    clusters: Any = None,
    slices: Any = None,
    cross: Iterable[Any] = (),
    weights: Any = None,
    mask: Any = None,
    overwrite: bool = False,
    state: Any = None,
    rows: Rows | None = None,
    state_out: Any = None,
    chunk_bytes: int = CHUNK_BYTES,
    zeros_ok: bool = False,
    allow_outside: str | os.PathLike[str] | Iterable[str | os.PathLike[str]] = (),
    storage_options: StorageOptions | None = None,
    check_shards: bool = False,
    scheduler: Any = None,
    progress: Progress | None = None,
) -> PairwiseReport:
    """The differences of the losses of every two of several prediction sets on the same labels, in one pass.

    The numbers of a pair are those of :func:`xent.compare`, and its p-values are corrected for the number of pairs. A
    row counts where it counts in all sets.

    Parameters
    ----------
    sets : iterable of predictions, each as in :func:`xent.evaluate`, shape (*batch, C)
        Two to 26, of one kind; their dtypes and formats may differ. They are called a, b, c, … in this order.
    labels, kind, axis, binary, strict_kind, class_names, ignore_index, on_bad_label : as in :func:`xent.evaluate`
    on_error, clusters, slices, cross, weights, mask : as in :func:`xent.evaluate`
    zeros_ok, allow_outside, storage_options, check_shards : as in :func:`xent.evaluate`
    classifier, bias, softcap, overwrite, state, rows, state_out : as in :func:`xent.evaluate`
    scheduler, progress : as in :func:`xent.evaluate`
    chunk_bytes : int
        Bytes of the first set in a task; the rows of a task are those of its chunks.

    Returns
    -------
    PairwiseReport
        A :class:`PairwiseComparison` that shows and saves itself, as the result of :func:`xent.evaluate` does.

    Raises
    ------
    FileNotFoundError, TypeError, ValueError, LabelError, ReadError, ConnectionError, ModuleNotFoundError
        As :func:`xent.compare` does; TypeError too if `sets` is one set, ValueError if there are not two to 26.

    Examples
    --------
    >>> import numpy as np
    >>> sure = np.array([[3.0, 0.0], [0.0, 3.0], [3.0, 0.0]])
    >>> found = compare_all([sure, sure / 2, sure * 0], np.array([0, 1, 0]))
    >>> {pair: (each.better, round(each.mean_difference, 4)) for pair, each in found.pairs.items()}
    {('a', 'b'): (3, -0.1528), ('a', 'c'): (3, -0.6446), ('b', 'c'): (3, -0.4917)}
    """
    if isinstance(sets, str | bytes | os.PathLike) or hasattr(sets, "shape") or not isinstance(sets, Iterable):
        raise TypeError(f"evaluate: `sets` must be prediction sets, got {sets!r}. Pass a list of them.")
    given = list(sets)
    options = Options(
        kind=kind,
        axis=class_axis(given[0], axis) if given else -1,
        binary=binary,
        strict_kind=strict_kind,
        ignore_index=ignored_labels(ignore_index),
        on_bad_label=on_bad_label,
        on_error=on_error,
        chunk_bytes=chunk_bytes,
        zeros_ok=zeros_ok,
        allow_outside=folders_of(allow_outside),
    )
    keys, outputs = Keys(slice_keys(slices, cross), clusters, weights, mask), Outputs(None, overwrite, state, state_out)
    with storage_options_set(storage_options), shards_checked(check_shards):
        wanted: dict[str, Any] = {"class_names": class_names, "head": Head(classifier, bias, softcap), "rows": rows}
        planned = plan_pairwise(given, labels, options, keys=keys, outputs=outputs, **wanted)
        comparison = run_pass(planned, scheduler=scheduler, progress=progress)
    warn_of_kind(**comparison.sets)
    return comparison


def merge_parts(
    parts: Iterable[str | os.PathLike[str]], *, partial: bool = False, storage_options: StorageOptions | None = None
) -> EvaluationReport | ComparisonReport | PairwiseReport:
    """The result of a set from the parts that independent jobs have made of it, as one run over all rows has it.

    Jobs that know nothing of each other each evaluate, or compare, a range of the rows of one set, with
    ``rows=(start, stop), state_out="part.json"``. What they leave merges exactly, so that the numbers, and the whole
    document but for its times, are the bits of one run. The seconds are those of all jobs together.

    Parameters
    ----------
    parts : iterable of paths
        The files that `state_out` named, in any order; a path or a URL may be a glob of them.
    partial : bool
        Whether rows may be missing: the numbers are those of the rows that are there, without bits per byte.
    storage_options : mapping, optional
        As in :func:`xent.evaluate`.

    Returns
    -------
    EvaluationReport, ComparisonReport or PairwiseReport
        By what the jobs did.

    Raises
    ------
    FileNotFoundError
        If a part is not there.
    ReadError
        If a file is truncated, corrupt, or no part.
    ValueError
        If there is no part; if they are of different inputs, options or versions; if a row is in two of them; or if
        rows are missing and `partial` is false. Which ones they are is said.
    KindError
        If logits look like probabilities and the jobs were told `strict_kind`.

    Examples
    --------
    >>> import tempfile
    >>> import numpy as np
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     np.save(f"{folder}/x.npy", np.zeros((5, 4), np.float32))
    ...     np.save(f"{folder}/y.npy", np.arange(5) % 4)
    ...     files = [f"{folder}/first.json", f"{folder}/second.json"]
    ...     for rows, file in zip([(0, 2), (2, None)], files):
    ...         part = evaluate(f"{folder}/x.npy", f"{folder}/y.npy", rows=rows, state_out=file)
    ...     whole = merge_parts(files)
    >>> part.rows, whole.rows, round(whole.perplexity, 6)
    (3, 5, 4.0)
    """
    is_one = isinstance(parts, str | bytes | os.PathLike) or not isinstance(parts, Iterable)
    if is_one:
        raise TypeError(f"evaluate: `parts` must be paths, got {parts!r}. Pass a list of them.")
    with storage_options_set(storage_options):
        result = merged_report(parts, partial=flag("evaluate", "partial", partial))
    warn_of_kind(**sets_of(result))
    return result
