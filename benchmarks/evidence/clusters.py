"""Spectral clustering of maps, a rival: do the maps of a class fall into groups, one of which follows something else?

SpRAy (Lapuschkin et al. 2019, Nature Communications 10:1096): the eigenvalues of the Laplacian of the maps' neighbours, whose
largest gap says how many groups there are. Here of GradCAM on all validation images after the last epoch, class by class.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import eigh
from sklearn.neighbors import kneighbors_graph

from cam_engine import CAM
from evidence import looks
from evidence.data import VAL_IMAGES
from evidence.plans import Training

NEIGHBOURS = 5
MOST_GROUPS = 8


def of_training(training: Training, out: Path) -> float:
    """The largest eigengap of any class of a finished training."""
    *_, (_, model) = looks.models(training, out)
    probe = looks.probe_of(training, VAL_IMAGES)
    assert probe.labels is not None
    cam = CAM(model, "gradcam", batch_size=60, progress=False)
    labels: Any = probe.labels
    (maps,) = cam(probe.images, labels.tolist()).raw.values()
    return largest_gap(maps.numpy(), labels.numpy())


def largest_gap(maps: NDArray[Any], labels: NDArray[Any]) -> float:
    """Of maps (N, h, w) and labels (N,): over classes the largest gap behind the second eigenvalue or a later one."""
    gaps = [eigengap(maps[labels == c]) for c in np.unique(labels)]
    return max(gaps)


def eigengap(maps: NDArray[Any]) -> float:
    """Of the maps of one class (n, h, w): the largest gap of the symmetric normalised Laplacian's eigenvalues that would make
    two to eight groups; 0 with too few maps that have mass."""
    flat = maps.reshape(len(maps), -1).astype(np.float64)
    flat = flat[np.isfinite(flat).all(1) & (flat.sum(1) > 0)]
    if len(flat) < 2 * NEIGHBOURS:
        return 0.0
    flat /= flat.sum(1, keepdims=True)
    graph = kneighbors_graph(flat, NEIGHBOURS).toarray()
    near = np.maximum(graph, graph.T)
    root = 1 / np.sqrt(near.sum(1))
    values = eigh(np.eye(len(near)) - root[:, None] * near * root, eigvals_only=True)
    return float(np.diff(values)[1:MOST_GROUPS].max())
