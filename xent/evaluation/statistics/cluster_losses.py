"""The losses of clusters: the mean of each, such as that of the tokens of a document, and its perplexity.

Each mean is rounded once, and sums over them are exact, so that no order of merges can show.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from xent.evaluation.statistics.bins import histogram_bin, histogram_edges
from xent.evaluation.statistics.exact_sums import Moments, moments_of

WORST = 10
"""How many clusters of the highest mean loss are kept."""
LARGEST_EXPONENT = 709.78


class ClusterLoss(NamedTuple):
    """A cluster of high loss: its rows, or the sum of their weights, the mean of their losses, and exp of that.

    The mean is NaN where a loss is NaN or infinite.
    """

    cluster: Any
    weight: float
    mean_loss: float
    perplexity: float


class ClusterBin(NamedTuple):
    """The clusters whose mean loss lies in [low, high), in nats."""

    low: float
    high: float
    clusters: int


class ClusterLosses(NamedTuple):
    """The mean losses of clusters, each cluster counting as one, however many rows it has.

    Attributes
    ----------
    mean_loss, standard_error : float
        The mean of the mean losses of the clusters, in nats, and its error; NaN where a loss is NaN or infinite.
    perplexity : float
        exp of that: the geometric mean of the perplexities of the clusters.
    histogram : tuple of ClusterBin
        The clusters by their mean loss, four bins to the octave.
    worst : tuple of ClusterLoss
        Those of the highest mean loss, the highest first; NaN before all.
    """

    mean_loss: float
    standard_error: float
    perplexity: float
    histogram: tuple[ClusterBin, ...]
    worst: tuple[ClusterLoss, ...]


@dataclass(frozen=True, slots=True)
class ClusterMeans:
    """Sums over clusters that are complete: the moments of their means, their histogram, and the highest of them."""

    clusters: int = 0
    means: Moments = field(default_factory=Moments)
    histogram: Mapping[int, int] = field(default_factory=dict)
    worst: tuple[ClusterLoss, ...] = ()

    def merge(self, other: ClusterMeans) -> ClusterMeans:
        """The sums over both."""
        both = self.histogram.keys() & other.histogram.keys()
        summed = {index: self.histogram[index] + other.histogram[index] for index in both}
        return ClusterMeans(
            self.clusters + other.clusters,
            self.means.merge(other.means),
            {**self.histogram, **other.histogram, **summed},
            highest((*self.worst, *other.worst)),
        )

    def losses(self) -> ClusterLosses | None:
        """The numbers of the clusters; None of none."""
        if not self.clusters:
            return None
        is_whole = self.means.n == self.clusters
        mean, error = (self.means.mean, self.means.standard_error) if is_whole else (math.nan, math.nan)
        bins = tuple(ClusterBin(*histogram_edges(index), count) for index, count in sorted(self.histogram.items()))
        return ClusterLosses(mean, error, perplexity_of(mean), bins, self.worst)


def cluster_means(clusters: Iterable[tuple[Any, float, float]]) -> ClusterMeans:
    """The sums over clusters, each a key, its rows or their weight, and the mean of its losses."""
    found = [ClusterLoss(key, weight, mean, perplexity_of(mean)) for key, weight, mean in clusters]
    finite = np.asarray([each.mean_loss for each in found if math.isfinite(each.mean_loss)], np.float64)
    bins, counts = np.unique(histogram_bin(finite), return_counts=True)
    histogram = dict(zip(bins.tolist(), counts.tolist(), strict=True))
    return ClusterMeans(len(found), moments_of(finite), histogram, highest(found))


def highest(clusters: Iterable[ClusterLoss]) -> tuple[ClusterLoss, ...]:
    """Those of the highest mean, NaN before all; of equal ones those of the first key."""

    def order(each: ClusterLoss) -> tuple[bool, float, Any]:
        is_number = not math.isnan(each.mean_loss)
        return is_number, -each.mean_loss if is_number else 0.0, each.cluster

    return tuple(sorted(clusters, key=order)[:WORST])


def perplexity_of(loss: float) -> float:
    """exp(loss); infinite where float64 holds no such number."""
    return math.inf if loss > LARGEST_EXPONENT else math.exp(loss)
