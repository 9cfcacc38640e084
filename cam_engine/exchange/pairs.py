"""Which image gives to which."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray


def draw_pairs(n: int, donors: int = 3, labels: Sequence[Any] | None = None, seed: int = 0) -> NDArray[np.int64]:
    """Seeded (donor, receiver) indices of n images, (P, 2): for each receiver ``donors`` others, P = n · min(donors, n − 1).

    Donors of another label come first where labels are known. The pairs of fewer donors are among those of more, and depend on
    no model, so that every look at a training tests the same ones.

    Raises:
        ValueError: Fewer than two images, no donor, or another number of labels than images.

    >>> from cam_engine.exchange import draw_pairs
    >>> draw_pairs(3, donors=1, labels=[0, 0, 1]).tolist()
    [[2, 0], [2, 1], [1, 2]]
    """
    if n < 2 or donors < 1:
        raise ValueError(f"{n} images and {donors} donors for each give no pair; two images and a donor are needed.")
    if labels is not None and len(labels) != n:
        raise ValueError(f"labels= holds {len(labels)} labels for {n} images.")
    tags = np.zeros(n) if labels is None else np.asarray(labels)
    pairs = []
    for receiver in range(n):
        others = np.random.default_rng([seed, receiver]).permutation(n)
        others = others[others != receiver]
        same = tags[others] == tags[receiver]
        pairs += [(donor, receiver) for donor in others[np.argsort(same, kind="stable")][:donors]]
    return np.array(pairs, dtype=np.int64)
