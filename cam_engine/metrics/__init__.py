"""Numbers about heatmaps: pure functions on batches of maps, in float64 on the CPU.

Every function takes maps (N, h, w) on the layer's own grid, after ReLU and not rescaled, as numpy arrays or tensors,
and returns one number for each image (N,). An invalid map (not finite, or with a sum not above 1e-12) gives NaN.
``docs/metrics.md`` shows a low and a high case of each. In the examples ``np`` is numpy.
"""

import cam_engine.metrics.catalogue  # noqa: F401  # fills the registry
from cam_engine.metrics.aggregates import aggregate, bootstrap_interval, by_group, mean, worst_tenth
from cam_engine.metrics.agreement import consensus, consensus_by_chance
from cam_engine.metrics.distribution import distributions, valid
from cam_engine.metrics.drift import (
    centroid_shift,
    centroid_vector,
    correlation,
    jensen_shannon,
    similarity,
    spearman,
    ssim,
    top_overlap,
    wasserstein,
)
from cam_engine.metrics.faithfulness import average_drop, confidence_increase, deletion, heatmaps, insertion, road
from cam_engine.metrics.localisation import (
    coverage,
    enrichment,
    on_target_mass,
    pixel_auc,
    pointing_game,
    rank_accuracy,
)
from cam_engine.metrics.permutation import MaxT, max_t
from cam_engine.metrics.pooled import Pooled, pooled_enrichment, ratio_interval
from cam_engine.metrics.registry import (
    Description,
    Metric,
    available_metrics,
    describe,
    descriptions,
    get_metrics,
    register_metric,
    register_number,
)
from cam_engine.metrics.shape import (
    border_enrichment,
    centroid,
    effective_share,
    eigen_gap,
    entropy,
    gini,
    spread,
    top_mass,
)
from cam_engine.metrics.shortcut import counterfactual_gap

__all__ = [
    "Description",
    "MaxT",
    "Metric",
    "Pooled",
    "aggregate",
    "available_metrics",
    "average_drop",
    "bootstrap_interval",
    "border_enrichment",
    "by_group",
    "centroid",
    "centroid_shift",
    "centroid_vector",
    "confidence_increase",
    "consensus",
    "consensus_by_chance",
    "correlation",
    "counterfactual_gap",
    "coverage",
    "deletion",
    "describe",
    "descriptions",
    "distributions",
    "effective_share",
    "eigen_gap",
    "enrichment",
    "entropy",
    "get_metrics",
    "gini",
    "heatmaps",
    "insertion",
    "jensen_shannon",
    "max_t",
    "mean",
    "on_target_mass",
    "pixel_auc",
    "pointing_game",
    "pooled_enrichment",
    "rank_accuracy",
    "ratio_interval",
    "register_metric",
    "register_number",
    "road",
    "similarity",
    "spearman",
    "spread",
    "ssim",
    "top_mass",
    "top_overlap",
    "valid",
    "wasserstein",
    "worst_tenth",
]
