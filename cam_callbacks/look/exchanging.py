"""What the prediction follows when two probe images exchange a part: asked on all processes together, then counted."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cam_callbacks import processes
from cam_callbacks.clock import Clock
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

# Of each part: at a look, at the last look of a fit, and at one that leaves no time for more.
MIXTURES, LAST_MIXTURES, FEW_MIXTURES = 64, 192, 32


def pairs_of(n: int, labels: Sequence[Any] | None, mixtures: int, seed: int = 0) -> NDArray[np.int64]:
    """(P, 2) donor and receiver of n images: as many donors for each as make so many mixtures, of a large probe for some."""
    pairs = draw_pairs(n, math.ceil(mixtures / n), labels, seed)
    receivers = np.random.default_rng(seed).permutation(n)[:mixtures]
    return pairs[np.isin(pairs[:, 1], receivers)]


def few_of(parts: Sequence[str]) -> tuple[str, ...]:
    """The parts that a few mixtures go to."""
    known = {"object", "background"} <= set(parts)
    return tuple(part for part in parts if not known or part in ("object", "background", "nuisance"))


class Exchange:
    """The exchange tests of a run: which parts, and between which images.

    Args:
        probe: The images.
        parts: Names of :func:`cam_engine.exchange.available_parts`; ``"auto"`` is all defaults that the probe allows.
        donors: For each receiver; None: as many as make the mixtures of a look.
        seed: Of pairs, moves and intervals.

    Raises:
        ValueError: No such part, or one that needs what the probe does not have.
    """

    def __init__(self, probe: ProbeSet, parts: str | Sequence[str] = "auto", donors: int | None = None, seed: int = 0):
        self.probe, self.donors, self.seed = probe, donors, seed
        self.masks, self.nuisance = probe.region_masks, probe.nuisance
        self.parts = self._chosen(parts) if len(probe) > 1 else ()

    def pairs(self, mixtures: int = MIXTURES) -> NDArray[np.int64]:
        """(P, 2) donor and receiver: the same at every look, those of few mixtures among those of more."""
        labels = None if self.probe.labels is None else self.probe.labels.tolist()
        if self.donors is not None:
            return draw_pairs(len(self.probe), self.donors, labels, self.seed)
        return pairs_of(len(self.probe), labels, mixtures, self.seed)

    def mixtures_at(self, clock: Clock, most: float | None, maps: int, first: bool, last: bool) -> int:
        """How many mixtures a part this look makes; 0: no test.

        Under ``max_overhead`` all of them are left out before looks are. Without it they keep to a share of their own, unless the
        number of donors was chosen: where all would take too long a few are made. The last look, on which the verdict stands, has a
        share to itself.

        Args:
            clock: The training's.
            most: ``max_overhead``.
            maps: Methods times layers.
            first: Is it the first look of a run? What tests cost is not known, and there is hardly a thing to tell.
            last: Is it the last look of a fit?
        """
        usual = LAST_MIXTURES if last else MIXTURES
        if most is not None:
            return usual if clock.affords(most) else 0
        if self.donors is not None:
            return usual
        if first and not last:
            return FEW_MIXTURES
        less = MIXTURES if last else FEW_MIXTURES
        return usual if clock.affords_extras(self.forwards(usual, maps), last) else less

    def forwards(self, mixtures: int, maps: int) -> int:
        """Mixtures that the model is asked about at a look of so many a part, at most: those of two images that it names alike
        are left out."""
        tests = sum(maps if "maps" in get_part(part).needs else 1 for part in self._parts_of(mixtures))
        return tests * len(self.pairs(mixtures))

    def _parts_of(self, mixtures: int) -> tuple[str, ...]:
        """A few mixtures go to what alerts are raised by: where the object is known to that, the background and a suspected region,
        else to all parts that need no map. That a map shows what decides is tested where there is time."""
        if self.donors is not None or mixtures >= MIXTURES:
            return self.parts
        return few_of([part for part in self.parts if "maps" not in get_part(part).needs]) or self.parts

    def test(self, subject: Subject, explained: Explained, mixtures: int = MIXTURES) -> Exchanged | None:
        """Ask the model. None where it is no classifier, or nothing is to be tested.

        Raises:
            LookError: It failed on any process.
        """
        started = time.perf_counter()
        predictions = explained.predictions
        parts = self._parts_of(mixtures)
        if not (mixtures and parts) or predictions is None or not subject.task.exchanges:
            return None
        pairs = self.pairs(mixtures)
        names = {series: series_name(*series, subject.layers) for series in explained.maps}
        maps = {names[series]: of for series, of in explained.maps.items()}
        shares = subject.batches.plan.everywhere(lambda: self._of_share(subject, explained, parts, maps, pairs))

        def counted(key: str) -> Followed:
            predicted = np.maximum.reduce([share[key] for share in shares])  # −1 where another share asked
            return count_followed(key, pairs, predictions, predicted, self.seed)

        per_map = [part for part in parts if "maps" in get_part(part).needs]
        whole = {part: counted(part) for part in parts if part not in per_map}
        of_maps = {(part, series): counted(f"{part}/{name}") for part in per_map for series, name in names.items()}
        tested = {"object", "background"} <= whole.keys()
        share = object_share(whole["object"], whole["background"], self.seed) if tested else None
        seconds = processes.from_rank_0(time.perf_counter() - started)
        asked = sum(int((predicted >= 0).sum()) for of in shares for predicted in of.values())
        return Exchanged(pairs, whole, of_maps, share, seconds, asked)

    def _of_share(
        self,
        subject: Subject,
        explained: Explained,
        parts: Sequence[str],
        maps: Mapping[str, Any],
        pairs: NDArray[np.int64],
    ) -> dict[str, NDArray[np.int64]]:
        def tested(size: int) -> dict[str, Followed]:
            return follows(
                subject.cam.model,
                self.probe.images,
                explained.predictions,
                parts,
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
