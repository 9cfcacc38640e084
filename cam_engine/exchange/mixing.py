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

    >>> from cam_engine.exchange import Mixer, draw_pairs
    >>> pairs = draw_pairs(len(images), donors=1)
    >>> mixer = Mixer(images, pairs, ["frame", "detail"])
    >>> mixer.keys, mixer("frame", [0, 1]).shape
    (['frame', 'detail'], torch.Size([2, 3, 32, 32]))
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
        self.pairs, self.seed = pairs, seed
        # Of a large probe a few images are in the pairs; only of these there are regions, at the images' size.
        self._used, places = np.unique(pairs, return_inverse=True)
        self._places: NDArray[np.int64] = places.reshape(pairs.shape)
        self._shape = images.shape
        images = images[torch.as_tensor(self._used, device=images.device)]
        self.images = images if images.dtype == torch.float64 else images.float()
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
        donors, receivers = self._places.T
        usable = np.ones(len(self.pairs), dtype=bool)
        for need in part.needs:
            if need not in regions:
                continue
            region = regions[need].flatten(1)
            some = region.any(1).cpu().numpy()
            there = some[donors] | some[receivers] if need == "nuisance" else some[donors] & some[receivers]
            leaves = [
                bool((~(region[d] | region[r])).any()) for d, r in self._places.tolist()
            ]  # something of the receiver
            usable &= there & np.array(leaves, dtype=bool)
        return usable

    def __call__(self, key: str, which: Sequence[int] | NDArray[np.int64]) -> Tensor:
        part, regions = self._tests[key]
        chosen = np.asarray(which, dtype=np.int64)
        sides = [torch.as_tensor(side, device=self.images.device) for side in self._places[chosen].T]
        arguments = [self.images[side] for side in sides]
        for need in part.needs:
            arguments += (
                [self._shifts(self.pairs[chosen])] if need == "shifts" else [regions[need][side] for side in sides]
            )
        mixture: Tensor = part.function(*arguments)
        return mixture

    def _mask(self, need: str, masks: Any) -> Tensor:
        shape = (self._shape[0], *self._shape[-2:])
        if np.shape(masks) != shape:
            raise ValueError(f"{need}= has shape {tuple(np.shape(masks))}; a region for each image is {shape}.")
        return self._of_used(masks) > 0.5

    def _focus(self, method: str, maps: Any) -> Tensor:
        shape = np.shape(maps)
        if len(shape) != 3 or shape[0] != self._shape[0]:
            raise ValueError(
                f"maps= holds shape {tuple(shape)} for {method!r}; ({self._shape[0]}, h, w) is expected, a map for each image."
            )
        of = self._of_used(maps).float()
        usable = torch.as_tensor(valid(of), device=of.device)[:, None, None]
        height, width = self._shape[-2:]
        return focus_region(torch.where(usable, of, 0.0), (height, width))

    def _of_used(self, values: Any) -> Tensor:
        """Those of the images that are in the pairs; a copy, for torch warns of sharing an array that is read-only."""
        if isinstance(values, Tensor):
            return values[torch.as_tensor(self._used, device=values.device)].to(self.images.device)
        return torch.tensor(np.asarray(values)[self._used], device=self.images.device)

    def _shifts(self, pairs: NDArray[np.int64]) -> Tensor:
        size = self.images.shape[-2:]
        return torch.as_tensor(np.stack([np.random.default_rng([self.seed, *pair]).integers(size) for pair in pairs]))
