"""Numbers about heatmaps: pure functions on batches of maps, in float64 on the CPU.

Every function takes maps (N, h, w) on the layer's own grid, after ReLU and not rescaled, as numpy arrays or tensors,
and returns one number for each image (N,). An invalid map (not finite, or with a sum not above 1e-12) gives NaN.
"""

from cam_engine.metrics.aggregates import aggregate, bootstrap_interval, by_group, mean, worst_tenth
from cam_engine.metrics.distribution import distributions, valid
from cam_engine.metrics.drift import centroid_shift, jensen_shannon
from cam_engine.metrics.localisation import coverage, enrichment, on_target_mass
from cam_engine.metrics.shape import centroid, entropy
from cam_engine.metrics.shortcut import MaxT, consensus, counterfactual_gap, max_t

__all__ = [
    "MaxT",
    "aggregate",
    "bootstrap_interval",
    "by_group",
    "centroid",
    "centroid_shift",
    "consensus",
    "counterfactual_gap",
    "coverage",
    "distributions",
    "enrichment",
    "entropy",
    "jensen_shannon",
    "max_t",
    "mean",
    "on_target_mass",
    "valid",
    "worst_tenth",
]
