"""What an evaluation looks like to another program: JSON documents.

Numbers that JSON cannot hold are the strings "nan", "inf" and "-inf".
"""

from __future__ import annotations

import json
import math
import platform
from contextlib import suppress
from dataclasses import asdict
from importlib import metadata
from typing import TYPE_CHECKING, Any

from xent.dispatch.settings import affinity
from xent.evaluation.engine.schedulers import largest_chunk, local_threads, projected_peak
from xent.evaluation.sources.source import refusal
from xent.evaluation.sources.topk import TopKSource

if TYPE_CHECKING:
    from xent.evaluation.engine.compare_pass import Comparison, PairPass
    from xent.evaluation.engine.evaluate_pass import Pass, Planned
    from xent.evaluation.sources.source import Source
    from xent.evaluation.statistics.metrics import Evaluation

SCHEMA_VERSION = 1
COUNTS = (
    *("rows", "counted", "ignored", "bad_labels", "beyond_rows", "unread_rows"),
    *("nan_rows", "infinite_rows", "unnormalised_rows"),
    *("first_bad_label", "first_beyond", "first_unread", "first_nan", "first_infinite", "first_unnormalised"),
    "clusters",
)


def document(evaluation: Evaluation, planned: Pass, *, scheduler: str, wall_seconds: float) -> dict[str, Any]:
    """What ``xent evaluate --json`` writes: schema version, inputs, options, counts, metrics, timing."""
    return {
        **heading(planned, scheduler),
        **numbers(evaluation),
        "timing": timing(planned, wall_seconds),
    }


def pair_document(found: Comparison, planned: PairPass, *, scheduler: str, wall_seconds: float) -> dict[str, Any]:
    """What ``xent compare --json`` writes: the difference, and the numbers of each set."""
    return {
        **heading(planned, scheduler),
        "difference": {
            "value": found.mean_difference,
            "stderr": found.standard_error,
            "n": found.counted,
            "interval_95": list(found.confidence_interval),
            "p_value": found.p_value,
            "clusters": found.clusters,
            "better": found.better,
            "worse": found.worse,
            "ties": found.ties,
        },
        "slices": {str(key): group._asdict() for key, group in found.slices.items()},
        "a": numbers(found.a),
        "b": numbers(found.b),
        "timing": timing(planned, wall_seconds),
    }


def heading(planned: Planned, scheduler: str) -> dict[str, Any]:
    """The schema version, the inputs, those of slices and clusters among them, and the options."""
    options = {"scheduler": scheduler, "chunk_bytes": planned.chunk_bytes, "chunks": planned.tasks}
    if hasattr(planned, "fits_temperature"):
        options["fit_temperature"] = planned.fits_temperature
    return {
        "schema_version": SCHEMA_VERSION,
        "inputs": {name: described(source) for name, source in planned.sources.items()},
        "options": asdict(planned.options) | options,
        "environment": environment(),
    }


def described(source: Source) -> dict[str, Any]:
    """The path, the shape and the dtype of a source; of the largest log-probabilities those of ids and values."""
    found = {"path": source.shown, "shape": list(source.shape), "dtype": str(source.dtype)}
    if not isinstance(source, TopKSource):
        return found
    stored = {"ids": described(source.ids), "log_probabilities": described(source.values)}
    return {**found, **stored, "classes": source.shape[1], "tail": source.tail}


def environment() -> dict[str, str]:
    """The machine, and the versions of what computed."""
    names = ("xent", "numpy", "dask", "distributed", "zarr", "pyarrow", "h5py")
    found = {"python": platform.python_version(), "platform": platform.platform(), "processors": str(affinity())}
    for name in names:
        with suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    return found


def timing(planned: Planned, wall_seconds: float) -> dict[str, float]:
    """Seconds, bytes of predictions, and the one by the other."""
    speed = planned.bytes / wall_seconds / 1e9
    return {"wall_seconds": wall_seconds, "bytes": planned.bytes, "gigabytes_per_second": speed}


def numbers(evaluation: Evaluation) -> dict[str, Any]:
    """The counts and the metrics of one set."""
    return {
        "counts": {name: getattr(evaluation, name) for name in COUNTS},
        "denominator": evaluation.denominator,
        "metrics": {name: asdict(metric) for name, metric in evaluation.metrics.items()},
        "loss_interval_95": list(evaluation.confidence_interval),
        "bits_per_byte": evaluation.bits_per_byte,
        "prior": {"loss": evaluation.prior_loss, "skill": evaluation.skill},
        "calibration": {
            "error": evaluation.calibration_error,
            "classwise_error": evaluation.classwise_calibration_error,
            "bins": [one._asdict() for one in evaluation.reliability],
        },
        "temperature": None if evaluation.temperature is None else evaluation.temperature._asdict(),
        "histogram": [one._asdict() for one in evaluation.histogram],
        "positions": [one._asdict() for one in evaluation.positions],
        "worst": [one._asdict() for one in evaluation.worst],
        "classes": {str(key): group._asdict() for key, group in evaluation.classes.items()},
        "slices": {str(key): group._asdict() for key, group in evaluation.slices.items()},
    }


def inspection(source: Source, chunk_bytes: int) -> dict[str, Any]:
    """What a source is and how it would be read; the peak is that of the threads that an evaluation has by default."""
    if not source.shape:
        raise ValueError(refusal("predictions", "have rows", source, "Save an array of shape (rows, classes)."))
    bounds = source.bounds(chunk_bytes)
    chunk, threads = largest_chunk(bounds) * source.row_bytes, local_threads()
    return {
        "path": source.shown,
        "shape": list(source.shape),
        "dtype": str(source.dtype),
        "bytes": source.shape[0] * source.row_bytes,
        "chunks": len(bounds) - 1,
        "chunk_bytes": chunk,
        "threads": threads,
        "projected_peak_bytes": projected_peak(threads, chunk),
    }


def to_json(value: dict[str, Any]) -> str:
    """The document as JSON text, without a bare NaN or Infinity."""
    return json.dumps(_speakable(value), indent=2, allow_nan=False)


def _speakable(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _speakable(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_speakable(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value
