"""All mixtures that pairs of images make, a few at a time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cam_engine.exchange.mixtures import focus_region
from cam_engine.exchange.parts import Part, get_part
from cam_engine.metrics.distribution import valid


class Mixer:
    """The mixtures of pairs of images, part by part; ``mixer(key, which)`` makes those of some pairs, (B, C, H, W).

    Args:
        images: (N, C, H, W) float. Mixtures are made on their device, in float32 or float64.
        pairs: (P, 2) int, donor and receiver.
        parts: Names of parts. One that needs maps is tested once for each method.
        masks, nuisance: (N, H, W) bool, or coverage in [0, 1], of which a pixel counts above ½.
        maps: For each method (N, h, w).
        seed: Of the moves of ``random``, which depend on it and on the pair alone.

    ``keys``: what the tests are called, ``"object"``, ``"focus/gradcam"``.

    Raises:
        ValueError: A part that is unknown or lacks what it needs; regions or maps that do not fit the images.
    """

    def __init__(
        self,
        images: Tensor,
        pairs: NDArray[np.int64],
        parts: Sequence[str],
        *,
        masks: Any = None,
        nuisance: Any = None,
        maps: Mapping[str, Any] | None = None,
        seed: int = 0,
    ) -> None:
        self.images = images if images.dtype == torch.float64 else images.float()
        self.pairs, self.seed = pairs, seed
        chosen = [get_part(name) for name in parts]
        given = {"masks": masks, "nuisance": nuisance, "maps": maps or None}
        for part in chosen:
            if lacking := [need for need in part.needs if need in given and given[need] is None]:
                raise ValueError(f"the part {part.name!r} needs {lacking[0]}=, and there are none.")
        needed = {need for part in chosen for need in part.needs}
        known: dict[str, Tensor] = {}
        for need in needed & {"masks", "nuisance"}:
            known[need] = self._mask(need, given[need])
        focus = {m: self._focus(m, of) for m, of in (maps or {}).items()} if "maps" in needed else {}
        self._tests: dict[str, tuple[Part, dict[str, Tensor]]] = {}
        for part in chosen:
            if "maps" in part.needs:
                self._tests |= {f"{part.name}/{m}": (part, known | {"maps": of}) for m, of in focus.items()}
            else:
                self._tests[part.name] = (part, known)
        self.keys = list(self._tests)

    def mixes(self, key: str) -> NDArray[np.bool_]:
        """(P,) bool: does the pair have the regions that the part exchanges, and do they leave something of both images?"""
        part, regions = self._tests[key]
        donors, receivers = self.pairs.T
        usable = np.ones(len(self.pairs), dtype=bool)
        for need in part.needs:
            if need not in regions:
                continue
            region = regions[need].flatten(1)
            some = region.any(1).cpu().numpy()
            there = some[donors] | some[receivers] if need == "nuisance" else some[donors] & some[receivers]
            leaves = [
                bool((~(region[d] | region[r])).any()) for d, r in self.pairs.tolist()
            ]  # something of the receiver
            usable &= there & np.array(leaves, dtype=bool)
        return usable

    def __call__(self, key: str, which: Sequence[int] | NDArray[np.int64]) -> Tensor:
        part, regions = self._tests[key]
        pairs = self.pairs[np.asarray(which, dtype=np.int64)]
        sides = [torch.as_tensor(side, device=self.images.device) for side in pairs.T]
        arguments = [self.images[side] for side in sides]
        for need in part.needs:
            arguments += [self._shifts(pairs)] if need == "shifts" else [regions[need][side] for side in sides]
        mixture: Tensor = part.function(*arguments)
        return mixture

    def _mask(self, need: str, masks: Any) -> Tensor:
        region = self._tensor(masks) > 0.5
        if region.shape != self.images[:, 0].shape:
            raise ValueError(
                f"{need}= has shape {tuple(region.shape)}; a region for each image is {tuple(self.images[:, 0].shape)}."
            )
        return region

    def _focus(self, method: str, maps: Any) -> Tensor:
        of = self._tensor(maps).float()
        if of.ndim != 3 or len(of) != len(self.images):
            raise ValueError(
                f"maps= holds shape {tuple(of.shape)} for {method!r}; ({len(self.images)}, h, w) is expected, a map for each image."
            )
        usable = torch.as_tensor(valid(of), device=of.device)[:, None, None]
        height, width = self.images.shape[-2:]
        return focus_region(torch.where(usable, of, 0.0), (height, width))

    def _tensor(self, array: Any) -> Tensor:
        # A copy of an array: torch warns of sharing one that is read-only, as arrays from a file are.
        return (array if isinstance(array, Tensor) else torch.tensor(np.asarray(array))).to(self.images.device)

    def _shifts(self, pairs: NDArray[np.int64]) -> Tensor:
        size = self.images.shape[-2:]
        return torch.as_tensor(np.stack([np.random.default_rng([self.seed, *pair]).integers(size) for pair in pairs]))
