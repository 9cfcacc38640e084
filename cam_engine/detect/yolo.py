"""YOLO detectors: the original YOLOv5, ultralytics, and libreyolo's YOLO9."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from cam_engine.detect.boxes import best_pairs, suppress, xyxy
from cam_engine.detect.family import Family
from cam_engine.detect.oriented import decoded, enclosing, suppress_oriented
from cam_engine.detect.raw import Detections, Raw


class YoloV5Style(Family):
    """Outputs (B, N, 5 + K): xywh in pixels, objectness and class probabilities, both after the sigmoid.

    Source: the ``Detect`` head of the YOLOv5 repository (v7.0), which in eval mode returns that tensor alone or first
    in a tuple.
    """

    title = "YOLOv5 (B, N, 5 + classes)"
    agnostic = False
    iou = 0.45

    @staticmethod
    def recognises(model: nn.Module) -> bool:
        head = _head(model)
        return head is not None and _has(head, "na", "nc", "no", "anchors") and head.no == head.nc + 5

    def layers(self) -> list[str]:
        return _head_inputs(self.model)

    def raw(self, outputs: Any) -> Raw:
        table = outputs[0] if isinstance(outputs, (tuple, list)) else outputs
        table = table[None] if table.ndim == 2 else table
        return Raw(xyxy(table[..., :4]), table[..., 5:], table[..., 4], logits=False)

    def detections(
        self, outputs: Any, *, confidence: float = 0.25, iou: float | None = None, max_detections: int = 300
    ) -> list[Detections]:
        raw = self.raw(outputs)
        assert raw.objectness is not None
        scores = raw.classes * raw.objectness[..., None]
        return _suppressed(
            raw.boxes, scores, confidence, self.iou if iou is None else iou, max_detections, self.agnostic
        )


class Ultralytics(Family):
    """ultralytics' anchor-free heads: v5u, v8, v9, 11 and 12, and the end-to-end v10 and 26; detection, segmentation, pose,
    oriented boxes.

    In eval mode the second output holds logits ``scores`` (B, K, N) and undecoded ``boxes``. Heads with a one-to-one
    branch have both under ``one2many`` and ``one2one``; ``head.end2end`` says which one is kept from. A release that
    computes the one-to-one branch from detached features leaves no gradient in it; the same row of the one-to-many
    branch, which sits on the same cell, is explained in its place.

    Oriented boxes are kept as ultralytics keeps them, and stand here as the upright boxes around them.
    """

    title = "ultralytics YOLO (v5u, v8, v9, v10, 11, 12, 26; detect, segment, pose, obb)"
    agnostic = False

    @staticmethod
    def recognises(model: nn.Module) -> bool:
        head = _head(model)
        return head is not None and _has(head, "cv2", "cv3", "nc", "reg_max", "dfl", "stride")

    def layers(self) -> list[str]:
        return _head_inputs(self.model)

    def raw(self, outputs: Any) -> Raw:
        return self._rows(self._explained(outputs))

    def detections(
        self, outputs: Any, *, confidence: float = 0.25, iou: float | None = None, max_detections: int = 300
    ) -> list[Detections]:
        kept, most = self._kept_from(outputs), max_detections
        raw, iou = self._rows(kept), self.iou if iou is None else iou
        probabilities = raw.classes.detach().sigmoid()
        if getattr(self._head, "end2end", False):
            pairs = zip(raw.boxes, probabilities, strict=True)
            return [best_pairs(boxes, scores, confidence=confidence, most=most) for boxes, scores in pairs]
        if "angle" in kept:
            pairs = zip(self._rotated(kept), probabilities, strict=True)
            settings: Any = {"confidence": confidence, "iou": iou, "most": most, "agnostic": self.agnostic}
            return [suppress_oriented(b, s, **settings) for b, s in pairs]
        return _suppressed(raw.boxes, probabilities, confidence, iou, most, self.agnostic)

    def masks(self, outputs: Any, image: int, detections: Detections) -> tuple[Tensor, Tensor]:
        branch = self._explained(outputs)
        if "mask_coefficient" not in branch:
            return super().masks(outputs, image, detections)
        assert detections.rows is not None
        coefficients = branch["mask_coefficient"][image].t()[detections.rows]
        prototypes = branch["proto"]
        prototypes = prototypes[0] if isinstance(prototypes, (tuple, list)) else prototypes
        logits = torch.einsum("nm,mhw->nhw", coefficients, prototypes[image])
        height, width = (step * side for step, side in zip(self._finest(branch), logits.shape[1:], strict=True))
        return logits, (logits > 0) & _inside(detections.boxes, logits.shape[1:], (height, width))

    @property
    def _head(self) -> Any:
        return _head(self.model)

    def _kept_from(self, outputs: Any) -> dict[str, Any]:
        """The branch that detections are kept from."""
        if not isinstance(outputs, (tuple, list)) or not isinstance(outputs[-1], dict):
            raise TypeError(
                "an ultralytics model in eval mode returns (predictions, dictionary of raw predictions); this one "
                f"returned {type(outputs).__name__}. An exported head (head.export) holds no scores before suppression."
            )
        branch = outputs[-1]
        if "one2one" in branch:
            branch = branch["one2one" if self._head.end2end else "one2many"]
        return branch

    def _explained(self, outputs: Any) -> dict[str, Any]:
        """The branch whose rows have a gradient to the head's inputs."""
        kept = self._kept_from(outputs)
        other = outputs[-1].get("one2many")
        if other and not kept["feats"][0].requires_grad and other["feats"][0].requires_grad:
            return other
        return kept

    def _rows(self, branch: dict[str, Any]) -> Raw:
        if "angle" in branch:
            return Raw(enclosing(self._rotated(branch)), branch["scores"].transpose(1, 2), None, logits=True)
        distances, points, strides = self._decoding(branch)
        low, high = distances.chunk(2, 1)
        corners = torch.cat([points - low, points + high], 1) * strides
        return Raw(corners.transpose(1, 2), branch["scores"].transpose(1, 2), None, logits=True)

    def _rotated(self, branch: dict[str, Any]) -> Tensor:
        """(B, N, 5): centre, width, height and angle of oriented boxes."""
        distances, points, strides = self._decoding(branch)
        return decoded(distances, branch["angle"], points, strides)

    def _decoding(self, branch: dict[str, Any]) -> tuple[Tensor, Tensor, Tensor]:
        """Distances (B, 4, N) in cells, the cells' centres (1, 2, N), and pixels of a cell."""
        head = self._head  # its own tensors, made by predict(), cannot be saved for a gradient
        return head.dfl(branch["boxes"]), head.anchors.clone()[None], head.strides.clone()

    def _finest(self, branch: dict[str, Any]) -> tuple[float, float]:
        """Pixels per cell of the prototypes (which are finer than the first level by some factor), by height and width."""
        level, stride = branch["feats"][0], float(self._head.stride[0])
        prototypes = branch["proto"][0] if isinstance(branch["proto"], (tuple, list)) else branch["proto"]
        return stride * level.shape[2] / prototypes.shape[2], stride * level.shape[3] / prototypes.shape[3]


class LibreYolo9(Family):
    """libreyolo's YOLO9 and its end-to-end variant: ``predictions`` (B, 4 + K, N), xyxy, beside ``raw_outputs``, logits."""

    title = "libreyolo YOLO9"
    agnostic = False

    @staticmethod
    def recognises(model: nn.Module) -> bool:
        head = getattr(model, "head", None)
        return isinstance(head, nn.Module) and _has(head, "cv2", "cv3", "nc", "reg_max", "dfl") and _has(model, "neck")

    def layers(self) -> list[str]:
        return [f"neck.{name}" for name in ("elan_up2", "elan_down1", "elan_down2")]

    def raw(self, outputs: Any) -> Raw:
        head: Any = self.model.head
        logits = torch.cat([level.flatten(2)[:, 4 * head.reg_max :] for level in outputs["raw_outputs"]], 2)
        boxes = outputs["predictions"][:, :4]
        return Raw(boxes.transpose(1, 2), logits.transpose(1, 2), None, logits=True)

    def detections(
        self, outputs: Any, *, confidence: float = 0.25, iou: float | None = None, max_detections: int = 300
    ) -> list[Detections]:
        raw = self.raw(outputs)
        scores = raw.classes.detach().sigmoid()
        if hasattr(self.model.head, "one2one_cv2"):
            pairs = zip(raw.boxes, scores, strict=True)
            return [best_pairs(boxes, each, confidence=confidence, most=max_detections) for boxes, each in pairs]
        return _suppressed(
            raw.boxes, scores, confidence, self.iou if iou is None else iou, max_detections, self.agnostic
        )


def _suppressed(
    boxes: Tensor, scores: Tensor, confidence: float, iou: float, most: int, agnostic: bool
) -> list[Detections]:
    pairs = zip(boxes, scores, strict=True)
    return [suppress(b, s, confidence=confidence, iou=iou, most=most, agnostic=agnostic) for b, s in pairs]


def _inside(boxes: Tensor, grid: Any, size: tuple[float, float]) -> Tensor:
    """(n, h, w) bool: cells whose centre lies in each xyxy box, for a grid over an image of (H, W) pixels."""
    (h, w), (height, width) = grid, size
    y = (torch.arange(h, device=boxes.device) + 0.5) * height / h
    x = (torch.arange(w, device=boxes.device) + 0.5) * width / w
    x1, y1, x2, y2 = (side[:, None] for side in boxes.unbind(1))
    return ((y >= y1) & (y <= y2))[:, :, None] & ((x >= x1) & (x <= x2))[:, None, :]


def _head(model: nn.Module) -> Any:
    """Last module of the list ``model.model``, as ultralytics and YOLOv5 build their networks."""
    parts = getattr(model, "model", None)
    if not isinstance(parts, (nn.Sequential, nn.ModuleList)) or not len(parts):
        return None
    return parts[-1] if hasattr(parts[-1], "f") else None


def _head_inputs(model: nn.Module) -> list[str]:
    head = _head(model)
    index = len(model.model) - 1  # type: ignore[arg-type]
    sources = [head.f] if isinstance(head.f, int) else list(head.f)
    return [f"model.{source if source >= 0 else index + source}" for source in sources]


def _has(module: Any, *names: str) -> bool:
    return all(hasattr(module, name) for name in names)
