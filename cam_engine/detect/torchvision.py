"""torchvision's detectors. In eval mode they return only what is kept; hooks take the rest along during the forward."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from cam_engine.detect.family import Family, padded
from cam_engine.detect.raw import Detections, Raw
from cam_engine.grids import Reshape


@dataclass(frozen=True, eq=False)
class TorchvisionOutputs:
    """One forward of a torchvision detector; images with fewer rows or boxes than others are filled up with zeros.

    ``raw``: all rows. ``probabilities`` (B, P, K): what boxes are kept by, for each anchor or proposal, background
    included. ``boxes`` (B, n, 4), ``labels`` (B, n), ``scores`` (B, n): what the model returned; ``counts`` (B,): how
    many of them. ``masks`` (B, n, K, h, w): mask logits, or None. ``canvas``: height and width of the padded batch, in
    images.
    """

    raw: Raw
    probabilities: Tensor
    boxes: Tensor
    labels: Tensor
    scores: Tensor
    counts: Tensor
    masks: Tensor | None
    canvas: tuple[float, float]


@dataclass(frozen=True, eq=False)
class _Taken:
    """What hooks took along: the head's outputs, anchors or proposals (N, 4) and the resized (H, W) of each image."""

    head: Any
    places: list[Tensor]
    resized: list[tuple[int, int]]
    size: tuple[int, int]


class _Torchvision(Family):
    """Resizing, padding and suppression are inside the model; ``score_thresh`` and ``nms_thresh`` are its attributes."""

    watched: tuple[str, str]  # what gives the head's outputs; what gives anchors or proposals

    def forward(self, model: nn.Module, images: Tensor) -> TorchvisionOutputs:
        returned: dict[str, Any] = {}
        head, places = self.watched
        with ExitStack() as stack:
            for name in ("transform", head, places, "roi_heads.mask_predictor"):
                module = _at(model, name)
                if isinstance(module, nn.Module):
                    stack.callback(module.register_forward_hook(_taker(returned, name)).remove)
            kept = model(list(images))
        batch = returned["transform"][0]
        where = list(returned[places][0] if places == "rpn" else returned[places])
        resized = [(int(h), int(w)) for h, w in batch.image_sizes]
        taken = _Taken(returned[head], where, resized, (images.shape[-2], images.shape[-1]))
        counts = [len(each["boxes"]) for each in kept]
        masks = returned.get("roi_heads.mask_predictor")
        return TorchvisionOutputs(
            raw=self._raw(taken),
            probabilities=self._probabilities(taken),
            **{name: padded([each[name] for each in kept]) for name in ("boxes", "labels", "scores")},
            counts=torch.tensor(counts, device=images.device),
            masks=None if masks is None else padded(masks.split(counts)),
            canvas=(batch.tensors.shape[-2] / resized[0][0], batch.tensors.shape[-1] / resized[0][1]),
        )

    def raw(self, outputs: Any) -> Raw:
        return _checked(outputs).raw

    def detections(
        self, outputs: Any, *, confidence: float = 0.25, iou: float | None = None, max_detections: int = 300
    ) -> list[Detections]:
        if iou is not None:
            raise ValueError("iou= is an attribute of a torchvision detector, nms_thresh; set it on the model.")
        return [
            self._kept(outputs, image, confidence).select(range(min(count, max_detections)))
            for image, count in enumerate(self._counts(outputs, confidence))
        ]

    def reshape(self, size: tuple[int, int]) -> Reshape | None:
        return lambda maps: maps  # images are resized and padded inside: a grid need not have their aspect ratio

    def canvas(self, outputs: Any) -> tuple[float, float]:
        return _checked(outputs).canvas

    def layers(self) -> list[str]:
        pyramid = getattr(self.model.backbone, "fpn", None)
        if pyramid is None:
            return ["backbone"]
        levels = [f"backbone.fpn.layer_blocks.{index}" for index in range(len(pyramid.layer_blocks))]
        extra = pyramid.extra_blocks if self.watched[1] != "rpn" else None  # regions are read from the levels alone
        return levels + [f"backbone.fpn.extra_blocks.{name}" for name in ("p6", "p7") if hasattr(extra, name)]

    def _raw(self, taken: _Taken) -> Raw:
        raise NotImplementedError

    def _probabilities(self, taken: _Taken) -> Tensor:
        raise NotImplementedError

    def _counts(self, outputs: Any, confidence: float) -> list[int]:
        checked = _checked(outputs)
        return [
            int((scores[:count] >= confidence).sum())
            for scores, count in zip(checked.scores, checked.counts.tolist(), strict=True)
        ]

    def _kept(self, outputs: TorchvisionOutputs, image: int, confidence: float) -> Detections:
        count = int(outputs.counts[image])
        chosen = outputs.scores[image, :count] >= confidence
        boxes, labels, scores = (
            column[image, :count].detach()[chosen] for column in (outputs.boxes, outputs.labels, outputs.scores)
        )
        everything = outputs.raw.boxes[image, : outputs.raw.rows(image)].detach()
        probabilities = outputs.probabilities[image].detach()
        each = zip(boxes, labels, scores, strict=True)
        rows = [self._row(box, int(label), score, everything, probabilities) for box, label, score in each]
        return Detections(boxes, labels, scores, torch.tensor(rows, dtype=torch.int64, device=boxes.device))

    def _row(self, box: Tensor, label: int, score: Tensor, boxes: Tensor, probabilities: Tensor) -> int:
        """The row that a kept box came from: the one with this box and score."""
        distance = (boxes - box).abs().amax(1) / box.abs().amax().clamp(min=1)
        return int((distance + (probabilities[: len(boxes), label] - score).abs()).argmin())


class _OneStage(_Torchvision):
    """A head that gives each anchor a row; anchors in the order of the head's outputs."""

    watched = ("head", "anchor_generator")

    def _raw(self, taken: _Taken) -> Raw:
        coder: Any = self.model.box_coder
        decode = getattr(coder, "decode_single", coder.decode)
        pairs = enumerate(zip(taken.head["bbox_regression"], taken.places, strict=True))
        boxes = [_original(taken, image, decode(offsets, anchors)) for image, (offsets, anchors) in pairs]
        return Raw(torch.stack(boxes), self._classes(taken), self._objectness(taken), logits=True)

    def _classes(self, taken: _Taken) -> Tensor:
        return taken.head["cls_logits"]

    def _objectness(self, taken: _Taken) -> Tensor | None:
        return None


class RetinaNet(_OneStage):
    """torchvision's RetinaNet: sigmoid for each class, a row for each anchor."""

    title = "torchvision RetinaNet"

    @staticmethod
    def recognises(model: nn.Module) -> bool:
        return _has(model, "head.classification_head.cls_logits") and not _has(
            model, "head.regression_head.bbox_ctrness"
        )

    def _probabilities(self, taken: _Taken) -> Tensor:
        return taken.head["cls_logits"].sigmoid()


class FCOS(_OneStage):
    """torchvision's FCOS: class and centerness logits; a box's score is √(class · centerness)."""

    title = "torchvision FCOS"

    @staticmethod
    def recognises(model: nn.Module) -> bool:
        return _has(model, "head.classification_head.cls_logits") and _has(model, "head.regression_head.bbox_ctrness")

    def _objectness(self, taken: _Taken) -> Tensor | None:
        return taken.head["bbox_ctrness"][..., 0]

    def _probabilities(self, taken: _Taken) -> Tensor:
        return (taken.head["cls_logits"].sigmoid() * taken.head["bbox_ctrness"].sigmoid()).sqrt()


class SSD(_OneStage):
    """torchvision's SSD and SSDlite: softmax with the background as class 0."""

    title = "torchvision SSD"

    @staticmethod
    def recognises(model: nn.Module) -> bool:
        return _has(model, "head.classification_head.module_list") and _has(model, "backbone.extra")

    def layers(self) -> list[str]:
        backbone: Any = self.model.backbone
        first = ["backbone.features"]
        if not hasattr(backbone, "scale_weight"):  # SSDlite reads each of the two parts
            first = [f"backbone.features.{index}" for index in range(len(backbone.features))]
        return first + [f"backbone.extra.{index}" for index in range(len(backbone.extra))]

    def _classes(self, taken: _Taken) -> Tensor:
        return _without_background(taken.head["cls_logits"])

    def _probabilities(self, taken: _Taken) -> Tensor:
        return taken.head["cls_logits"].softmax(-1)


class FasterRCNN(_Torchvision):
    """torchvision's Faster R-CNN and Mask R-CNN: a row for each proposal and class, softmax with the background as class 0.

    Row ``p · (K − 1) + c − 1`` is the box that proposal p gives class c; its class scores are the proposal's. A region
    reads one level of the pyramid: on the others the gradient is exactly zero.
    """

    title = "torchvision Faster R-CNN, Mask R-CNN"
    watched = ("roi_heads.box_predictor", "rpn")
    fixed_rows = False

    @staticmethod
    def recognises(model: nn.Module) -> bool:
        return _has(model, "roi_heads.box_predictor")

    def masks(self, outputs: Any, image: int, detections: Detections) -> tuple[Tensor, Tensor]:
        if outputs.masks is None:
            return super().masks(outputs, image, detections)
        everything = self._kept(outputs, image, 0.0)
        assert everything.rows is not None and detections.rows is not None
        position = (everything.rows[None] == detections.rows[:, None]).int().argmax(1)
        logits = outputs.masks[image, position, detections.labels]
        return logits, logits.detach() > 0

    def _raw(self, taken: _Taken) -> Raw:
        logits, offsets = taken.head
        coder: Any = _at(self.model, "roi_heads.box_coder")
        counts = [len(proposals) for proposals in taken.places]
        foreground = logits.shape[1] - 1
        decoded = coder.decode(offsets, taken.places).split(counts)
        boxes = [_original(taken, image, each[:, 1:].reshape(-1, 4)) for image, each in enumerate(decoded)]
        classes = [_without_background(each).repeat_interleave(foreground, 0) for each in logits.split(counts)]
        rows = torch.tensor(counts, device=logits.device) * foreground
        return Raw(padded(boxes), padded(classes, torch.finfo(logits.dtype).min), None, logits=True, counts=rows)

    def _probabilities(self, taken: _Taken) -> Tensor:
        return padded(taken.head[0].softmax(-1).split([len(proposals) for proposals in taken.places]))

    def _row(self, box: Tensor, label: int, score: Tensor, boxes: Tensor, probabilities: Tensor) -> int:
        foreground = probabilities.shape[1] - 1
        own = boxes.unflatten(0, (-1, foreground))[:, label - 1]
        return super()._row(box, label, score, own, probabilities) * foreground + label - 1


def _taker(returned: dict[str, Any], name: str) -> Callable[[nn.Module, Any, Any], None]:
    def hook(_module: nn.Module, _inputs: Any, output: Any) -> None:
        returned[name] = output

    return hook


def _checked(outputs: Any) -> TorchvisionOutputs:
    if not isinstance(outputs, TorchvisionOutputs):
        raise TypeError(
            "a torchvision detector returns only what it keeps: call it through family.forward(model, images), and pass "
            "forward=family.forward to CAM."
        )
    return outputs


def _original(taken: _Taken, image: int, boxes: Tensor) -> Tensor:
    """Boxes (N, 4) of the resized image, clipped to it, in the original image's pixels."""
    height, width = taken.resized[image]
    x, y = boxes[..., 0::2].clamp(0, width), boxes[..., 1::2].clamp(0, height)
    corners = torch.stack([x * (taken.size[1] / width), y * (taken.size[0] / height)], -1)  # (N, 2 corners, x and y)
    return corners.flatten(-2)


def _without_background(logits: Tensor) -> Tensor:
    return torch.cat([torch.full_like(logits[..., :1], torch.finfo(logits.dtype).min), logits[..., 1:]], -1)


def _at(model: nn.Module, path: str) -> Any:
    module: Any = model
    for part in path.split("."):
        module = getattr(module, part, None)
    return module


def _has(model: nn.Module, path: str) -> bool:
    return all(_at(model, name) is not None for name in (path, "transform", "backbone"))
