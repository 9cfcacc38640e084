"""What is looked at: a model, how it is called, its layers, and the score that is explained. Made once a run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from cam_callbacks.look.batches import Batches
from cam_callbacks.look.calling import Calling, calling_of
from cam_callbacks.look.detection import ProbeBoxTarget
from cam_callbacks.look.options import LookOptions
from cam_callbacks.look.target import Target, fixed_classes
from cam_callbacks.probe import ProbeSet
from cam_engine import CAM
from cam_engine.capture import rescore
from cam_engine.detect import Family, family_of
from cam_engine.layers import layers_within


@dataclass(frozen=True, eq=False)
class Subject:
    """The model of a run, ready to be explained.

    ``given``: as it was handed over. ``cam``: explains it, or the detector that it is or holds (``family``, else None).
    ``layers``: names of the layers that are watched, ``modules``: which these are. ``target``: the score that is explained.
    ``classes``: (N,) int64 of the probe's images, where a class is explained that is known beforehand; else None.
    ``batches``: how many images at once. ``calling``: how the model is called with them.
    """

    given: nn.Module
    cam: CAM
    layers: tuple[str, ...]
    modules: tuple[nn.Module, ...]
    target: Target
    classes: NDArray[np.int64] | None
    batches: Batches
    calling: Calling
    family: Family | None = None

    def is_of(self, model: nn.Module) -> bool:
        """Was this made of that very model, and are its layers still parts of it?"""
        return model is self.given and {self.cam.model, *self.modules} <= set(model.modules())

    def class_scores(self, images: Tensor, rows: Sequence[int]) -> Any:
        """What the model says of images (B, C, H, W), versions of the probe's in ``rows``: class scores (B, K) of a classifier."""
        placed = _as_it_takes(self.cam.model, images)
        return self.cam.scores_of(rescore(self.cam.model, placed, forward=self.calling.of(rows)))

    def within_image(self, maps: Tensor, outputs: Any) -> Tensor:
        """The part (B, h', w') of maps (B, h, w) that lies on the image, where a detector pads images at the bottom right."""
        high, wide = (1.0, 1.0) if self.family is None else self.family.canvas(outputs)
        return maps[:, : max(1, round(maps.shape[1] / high)), : max(1, round(maps.shape[2] / wide))]


def subject_of(
    model: nn.Module,
    probe: ProbeSet,
    options: LookOptions,
    known_layers: Sequence[str] = (),
    batches: Batches | None = None,
) -> Subject:
    """How to look at a model. What the user chose stays; the rest is the detector's, if the model is or holds one.

    A detector's default layers are all inputs of its head, since a single one is blank for objects of another size;
    its default target is :class:`~cam_callbacks.look.detection.ProbeBoxTarget`.

    Args:
        model: The model.
        probe: The images; one of them goes through the model where layers are to be chosen.
        options: For this probe, see :meth:`LookOptions.on`.
        known_layers: Those of this run's earlier looks, which stay.
        batches: Of this run's earlier looks.
    """
    target = options.target
    classes = fixed_classes(target, probe)
    score: Target = classes.tolist() if classes is not None else target
    inner, layers, forward, reshape = model, options.layers, options.forward, options.reshape
    family = _detector_in(model) if forward is None else None
    if family is not None:
        every_input = isinstance(layers, str) and layers == "auto"
        height, width = probe.images.shape[-2:]
        inner, forward = family.model, family.forward
        layers = family.layers() if every_input else layers_within(model, inner, layers)
        reshape = reshape or family.reshape((height, width))
        score = ProbeBoxTarget(probe, family) if isinstance(target, str) else score
        calling = Calling(None, None, None, forward)  # a detector takes images
    else:
        calling = calling_of(model, probe, forward)
    cam = CAM(
        inner,
        options.method_names,
        list(known_layers) or layers,
        forward=calling.of([0]),
        output=options.output,
        reshape=reshape,
        progress=False,
    )
    watched = cam.resolve(_as_it_takes(inner, probe.images[:1]))
    batches = Batches(options.batch_size) if batches is None else batches
    return Subject(model, cam, tuple(watched), tuple(watched.values()), score, classes, batches, calling, family)


def _detector_in(model: nn.Module) -> Family | None:
    try:
        return family_of(model)
    except TypeError:
        return None


def _as_it_takes(model: nn.Module, images: Tensor) -> Tensor:
    """Images on the model's device and in its precision."""
    parameter = next((p for p in model.parameters() if p.is_floating_point()), None)
    return images if parameter is None else images.to(parameter)
