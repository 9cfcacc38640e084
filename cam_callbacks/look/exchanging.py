"""What the prediction follows when two probe images exchange a part: asked on all processes together, then counted."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cam_callbacks import processes
from cam_callbacks.keys import series_name
from cam_callbacks.look.exchanged import Exchanged
from cam_callbacks.look.explaining import Explained
from cam_callbacks.look.subject import Subject
from cam_callbacks.probe import ProbeSet
from cam_engine.exchange import (
    Followed,
    count_followed,
    default_parts,
    draw_pairs,
    follows,
    get_part,
    object_share,
)

MIXTURES, LAST_MIXTURES = 64, 192  # of each part at a look, and at the last look of a fit


class Exchange:
    """The exchange tests of a run: which parts, and between which images.

    Args:
        probe: The images.
        parts: Names of :func:`cam_engine.exchange.available_parts`; ``"auto"`` is all defaults that the probe allows.
        donors: For each receiver; None: as many as make 64 mixtures a part, at the last look of a fit 192.
        seed: Of pairs, moves and intervals.

    Raises:
        ValueError: No such part, or one that needs what the probe does not have.
    """

    def __init__(self, probe: ProbeSet, parts: str | Sequence[str] = "auto", donors: int | None = None, seed: int = 0):
        self.probe, self.donors, self.seed = probe, donors, seed
        self.masks, self.nuisance = probe.region_masks, probe.nuisance
        self.parts = self._chosen(parts) if len(probe) > 1 else ()

    def pairs(self, last: bool = False) -> NDArray[np.int64]:
        """(P, 2) donor and receiver: the same at every look, those of the last look among more."""
        n = len(self.probe)
        labels = None if self.probe.labels is None else self.probe.labels.tolist()
        if self.donors is not None:
            return draw_pairs(n, self.donors, labels, self.seed)
        mixtures = LAST_MIXTURES if last else MIXTURES
        pairs = draw_pairs(n, math.ceil(mixtures / n), labels, self.seed)
        receivers = np.random.default_rng(self.seed).permutation(n)[:mixtures]  # of a large probe not every image
        return pairs[np.isin(pairs[:, 1], receivers)]

    def test(self, subject: Subject, explained: Explained, last: bool = False) -> Exchanged | None:
        """Ask the model. None where it is no classifier, or nothing is to be tested.

        Raises:
            LookError: It failed on any process.
        """
        started = time.perf_counter()
        predictions = explained.predictions
        if not self.parts or predictions is None or not subject.task.exchanges:
            return None
        pairs = self.pairs(last)
        names = {series: series_name(*series, subject.layers) for series in explained.maps}
        maps = {names[series]: of for series, of in explained.maps.items()}
        shares = subject.batches.plan.everywhere(lambda: self._of_share(subject, explained, maps, pairs))

        def counted(key: str) -> Followed:
            predicted = np.maximum.reduce([share[key] for share in shares])  # −1 where another share asked
            return count_followed(key, pairs, predictions, predicted, self.seed)

        per_map = [part for part in self.parts if "maps" in get_part(part).needs]
        whole = {part: counted(part) for part in self.parts if part not in per_map}
        of_maps = {(part, series): counted(f"{part}/{name}") for part in per_map for series, name in names.items()}
        tested = {"object", "background"} <= whole.keys()
        share = object_share(whole["object"], whole["background"], self.seed) if tested else None
        seconds = processes.from_rank_0(time.perf_counter() - started)
        return Exchanged(pairs, whole, of_maps, share, seconds)

    def _of_share(
        self, subject: Subject, explained: Explained, maps: Mapping[str, Any], pairs: NDArray[np.int64]
    ) -> dict[str, NDArray[np.int64]]:
        def tested(size: int) -> dict[str, Followed]:
            return follows(
                subject.cam.model,
                self.probe.images,
                explained.predictions,
                self.parts,
                masks=self.masks,
                nuisance=self.nuisance,
                maps=maps,
                pairs=pairs,
                seed=self.seed,
                batch_size=size,
                receiving=subject.calling.of,
                output=lambda outputs: subject.task.logits(subject.cam.scores_of(outputs)),
                inside=subject.task.inside,
                share=subject.batches.plan.padded,
            )

        return {key: of.predicted for key, of in subject.batches.with_size(tested).items()}

    def _chosen(self, parts: str | Sequence[str]) -> tuple[str, ...]:
        known = {"masks": self.masks is not None, "nuisance": self.nuisance is not None}
        if parts == "auto":
            return default_parts(**known, maps=True)
        chosen = tuple(dict.fromkeys([parts] if isinstance(parts, str) else parts))
        for name in chosen:
            lacking = [need for need in get_part(name).needs if known.get(need) is False]
            if lacking:
                what = {"masks": "masks= or boxes=", "nuisance": "nuisance="}[lacking[0]]
                raise ValueError(f"exchange= names {name!r}, which needs ProbeSet({what}); this probe has none.")
        return chosen
