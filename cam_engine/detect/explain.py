"""Maps of a detector's boxes: all together, for each class, or for each box."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

import torch
from torch import Tensor

from cam_engine.cam import CAM
from cam_engine.capture import Captured, NoGradientError
from cam_engine.detect.families import family_of
from cam_engine.detect.family import Family
from cam_engine.detect.raw import Detections
from cam_engine.detect.targets import BoxTarget, Matching
from cam_engine.extras import Extras
from cam_engine.guard import random_streams
from cam_engine.layers import LayerSpec, layers_within
from cam_engine.methods.registry import Method
from cam_engine.result import Aggregate, CAMResult, minmax

Per = Literal["all", "class", "detection"]


@dataclass(frozen=True, eq=False)
class Part:
    """One explained group of boxes.

    ``label``: class index, None for boxes of all classes; ``name``: as the model calls it. ``score``: the best of its
    boxes' scores. ``box``: (x1, y1, x2, y2) in pixels of the model's input, where the part is one detection. ``members``:
    positions of its boxes in ``Explained.detections``. ``heatmaps[method]``: (H, W) float32 in [0, 1]. ``valid[method]``:
    is there anything in it?

    >>> from cam_engine.detect import explain_detections
    >>> part = explain_detections(detector, images[:1], per="detection", confidence=0.4)[0].parts[0]
    >>> part.name, len(part.box), part.members
    ('0', 4, (0,))
    """

    label: int | None
    name: str | None
    score: float
    box: tuple[float, float, float, float] | None
    members: tuple[int, ...]
    heatmaps: Mapping[str, Tensor]
    valid: Mapping[str, bool]


@dataclass(frozen=True, eq=False)
class Explained:
    """What one image's boxes were explained by.

    ``detections``: the boxes that took part. ``parts``: one for all, for each class or for each box; none without boxes.
    ``layers``: names of the explained layers. ``size``: (H, W) of the image. ``note``: why there is nothing, else "";
    then ``features[method]`` (H, W) in [0, 1], of the methods that explain no score, is what all layers respond to.

    >>> from cam_engine.detect import explain_detections
    >>> explained = explain_detections(detector, images[:1], confidence=0.4)[0]
    >>> explained.layers, len(explained.parts), explained.parts[0].heatmaps["gradcam"].shape
    (('features',), 1, torch.Size([32, 32]))
    """

    detections: Detections
    parts: list[Part]
    methods: tuple[str, ...]
    layers: tuple[str, ...]
    size: tuple[int, int]
    note: str = ""
    features: Mapping[str, Tensor] = field(default_factory=dict)
    _device: torch.device = field(default=torch.device("cpu"), repr=False)

    def heatmap(self, method: str) -> Tensor:
        """(H, W) in [0, 1]: the average of the parts' heatmaps, scaled again; zeros where there is none."""
        valid = [part.heatmaps[method] for part in self.parts if part.valid[method]]
        if not valid:
            return torch.zeros(self.size, device=self._device)
        return minmax(torch.stack(valid).mean(0)[None])[0]


def explain_detections(
    model: Any,
    images: Tensor,
    methods: str | Method | Sequence[str | Method] = "gradcam",
    *,
    per: Per = "all",
    classes: str | int | Iterable[str | int] | None = None,
    items: str | Sequence[str] = ("class",),
    matching: Matching = "exact",
    k: int = 10,
    layers: LayerSpec | None = None,
    confidence: float = 0.25,
    iou: float | None = None,
    max_detections: int = 300,
    aggregate: Aggregate = "max",
    family: Family | None = None,
    **settings: Any,
) -> list[Explained]:
    """Detect, and explain what was detected.

    Each image takes one forward, and each part one gradient call for each item; methods that run the model on variants of
    an image (Score-CAM, Ablation-CAM, FullGrad, …) take what they need for each part.

    Args:
        model: A detector of a known family, or what holds one as its ``.model``. It is left as it was.
        images: (B, C, H, W), as the model gets them.
        methods: As for :class:`cam_engine.CAM`.
        per: ``"all"``: one map; ``"class"``: one for each detected class; ``"detection"``: one for each box.
        classes: Only boxes of these classes, by name or index; None or an empty list: all.
        items: What of a box is explained, see :class:`BoxTarget`; the maps of several are averaged.
        matching: ``"exact"`` or ``"overlap"``; see :class:`BoxTarget`.
        k: Rows for each box in *overlap*.
        layers: As for :class:`cam_engine.CAM`; None: all inputs of the detection head that have a part in the explained
            boxes. (By gradients the others' maps are blank anyway; EigenCAM shows what a layer responds to, which on one
            that detects nothing may as well be the background.)
        confidence: Boxes with at least about this score are kept.
        iou: Threshold of suppression; None: the family's own.
        max_detections: Most boxes kept for each image.
        aggregate: How the layers' maps, each scaled by itself and upsampled, become one: ``"max"`` or ``"mean"``.
        family: For a detector that :func:`family_of` does not know.
        settings: More arguments of :class:`cam_engine.CAM`: ``eigen_smooth``, ``component``, ``center``, ``reshape``,
            ``batch_size``, ``seed``, ``progress``.

    Raises:
        TypeError: A model of no known family.
        ValueError: An unknown ``per``, item or matching, or ``aug_smooth``: a row of a mirrored image is another place.
        UnknownNameError: (a KeyError) an unknown class, method or layer.

    >>> from cam_engine.detect import explain_detections
    >>> explained = explain_detections(detector, images, "gradcam", per="class", confidence=0.4)
    >>> [[part.label for part in of_image.parts] for of_image in explained][0]
    [0, 1]
    """
    if per not in ("all", "class", "detection"):
        raise ValueError(f'per= takes "all", "class" or "detection", not {per!r}.')
    if settings.get("aug_smooth"):
        raise ValueError("aug_smooth is not for detections: in a mirrored image, a row of the output is another place.")
    family = family or family_of(model)
    size = (images.shape[-2], images.shape[-1])
    settings = {"reshape": family.reshape(size)} | settings
    chosen = family.layers() if layers is None else layers_within(model, family.model, layers)
    cam = CAM(family.model, methods, chosen, forward=family.forward, aggregate=aggregate, **settings)
    images = cam.prepare(images)
    wanted = family.indices(classes)
    explained = []
    with random_streams(), torch.inference_mode(False):
        for image in images.split(1):
            captured = cam.capture(image, outputs=True, record=True)
            image_pass = _CapturedImage(cam, family, image, captured, sparse=layers is None)
            detections, *_ = family.detections(
                captured.outputs, confidence=confidence, iou=iou, max_detections=max_detections
            )
            detections = detections if wanted is None else detections.of_classes(wanted)
            target = BoxTarget(detections, items, matching, k, family=family)
            parts = [_part(image_pass, target, members, per) for members in _groups(detections, per)]
            explained.append(
                Explained(
                    detections=detections,
                    parts=parts,
                    methods=tuple(cam.methods),
                    layers=tuple(captured.activations),
                    size=size,
                    note="" if parts else _nothing(family, wanted, confidence),
                    features={} if parts else image_pass.features(),
                    _device=image.device,
                )
            )
    return explained


@dataclass(frozen=True, eq=False)
class _CapturedImage:
    """One forward of one image, its graph kept for the gradients of all parts.

    ``sparse``: a layer that has no part in the explained boxes is blank for every method.
    """

    cam: CAM
    family: Family
    image: Tensor
    captured: Captured
    sparse: bool

    def heatmaps(self, target: BoxTarget) -> dict[str, Tensor]:
        """Of one item, for each method: (H, W) in [0, 1]."""
        methods = self.cam.methods.values()
        once = [method for method in methods if method.explains_score and not method.reruns]
        again = [method for method in methods if method.reruns]
        extras = self._extras(target)
        raw = self.cam.maps(extras, once) if once else {}
        if self._of_features:
            blank = self._blank(extras)
            raw |= {(name, layer): each * (layer not in blank) for (name, layer), each in self._of_features.items()}
        if again:
            raw |= self.cam.maps(self._extras(self._of_variants(target)), again)
        return self._composed({(name, layer): raw[name, layer] for name in self.cam.methods for layer in extras.views})

    def features(self) -> dict[str, Tensor]:
        """For each method that explains no score: (H, W) in [0, 1], of all layers."""
        return self._composed(self._of_features)

    def _extras(self, target: BoxTarget) -> Extras:
        return self.cam.extras(self.image, self.captured, target, keep_graph=True)

    def _blank(self, extras: Extras) -> set[str]:
        """Layers without a part in the score."""
        if not self.sparse:
            return set()
        try:
            return {layer for layer, gradient in extras.raw_gradients.items() if not bool(gradient.any())}
        except NoGradientError:  # a score that no layer has a part in tells nothing about one of them
            return set()

    def _of_variants(self, target: BoxTarget) -> BoxTarget:
        """The target for variants of the image, in which a row may be another place."""
        if self.family.fixed_rows or target.matching != "exact":
            return target
        return BoxTarget(target.detections, target.items, "overlap", target.k, family=target.family)

    @cached_property
    def _of_features(self) -> dict[tuple[str, str], Tensor]:
        """Maps of the methods that explain no score: the same for all parts."""
        free = [method for method in self.cam.methods.values() if not method.explains_score]
        return self.cam.maps(self.cam.extras(self.image, self.captured), free)

    def _composed(self, raw: dict[tuple[str, str], Tensor]) -> dict[str, Tensor]:
        """Upsampled to the image; what the model padded below and to the right of it is cut off."""
        height, width = self.image.shape[-2:]
        factors = self.family.canvas(self.captured.outputs)
        result = CAMResult(raw, None, None, (round(height * factors[0]), round(width * factors[1])), self.cam.aggregate)
        return {name: minmax(result[name][:, :height, :width])[0] for name in result.methods}


def _part(image_pass: _CapturedImage, target: BoxTarget, members: tuple[int, ...], per: Per) -> Part:
    chosen = target.select(members)
    detections = chosen.detections[0]
    of_items = [image_pass.heatmaps(item) for item in chosen.split()]
    heatmaps = {name: minmax(torch.stack([maps[name] for maps in of_items]).mean(0)[None])[0] for name in of_items[0]}
    label = None if per == "all" else int(detections.labels[0])
    x1, y1, x2, y2 = detections.boxes[0].tolist()
    return Part(
        label=label,
        name=None if label is None else image_pass.family.name_of(label),
        score=float(detections.scores.max()),
        box=(x1, y1, x2, y2) if per == "detection" else None,
        members=members,
        heatmaps=heatmaps,
        valid={name: bool(heatmap.any()) for name, heatmap in heatmaps.items()},
    )


def _groups(detections: Detections, per: Per) -> Iterator[tuple[int, ...]]:
    """Positions of the boxes of each part; classes in the order of their best box."""
    labels = detections.labels.tolist()
    if per == "detection":
        yield from ((position,) for position in range(len(labels)))
    elif per == "class":
        for label in dict.fromkeys(labels):
            yield tuple(position for position, other in enumerate(labels) if other == label)
    elif labels:
        yield tuple(range(len(labels)))


def _nothing(family: Family, wanted: set[int] | None, confidence: float) -> str:
    what = "nothing" if wanted is None else f"no {' or '.join(family.name_of(label) for label in sorted(wanted))}"
    return f"{what} was detected with a confidence of {confidence:g} or more"
