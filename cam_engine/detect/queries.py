"""Detectors whose decoder gives each query one row: DETR and its descendants. The query's index is the row."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from cam_engine.detect.boxes import best_pairs, best_rows, xyxy
from cam_engine.detect.family import Family
from cam_engine.detect.raw import Detections, Raw
from cam_engine.grids import Reshape


@dataclass(frozen=True, eq=False)
class Queries:
    """Logits (B, Q, K) or (B, Q, K + 1) and boxes (B, Q, 4), centre and size in fractions of images of ``size`` (H, W)."""

    logits: Tensor
    boxes: Tensor
    size: tuple[int, int]


class _Queries(Family):
    """A row for each query; the logits' last column is "no object" or there is none."""

    def forward(self, model: nn.Module, images: Tensor) -> Queries:
        logits, boxes = self._read(self._call(model, images))
        return Queries(logits, boxes, (images.shape[-2], images.shape[-1]))

    def raw(self, outputs: Any) -> Raw:
        queries = _checked(outputs)
        height, width = queries.size
        scale = queries.boxes.new_tensor([width, height, width, height])
        logits = queries.logits[..., :-1] if self._no_object() else queries.logits
        return Raw(xyxy(queries.boxes) * scale, logits, None, logits=True)

    def detections(
        self, outputs: Any, *, confidence: float = 0.25, iou: float | None = None, max_detections: int = 300
    ) -> list[Detections]:
        if iou is not None:
            raise ValueError("iou= has no meaning for a detector with queries: it suppresses no boxes.")
        boxes, logits = self.raw(outputs).boxes, _checked(outputs).logits
        if self._no_object():
            pairs = zip(boxes, logits.softmax(-1)[..., :-1], strict=True)
            return [best_rows(b, s, confidence=confidence, most=max_detections) for b, s in pairs]
        most = min(max_detections, boxes.shape[1])
        pairs = zip(boxes, logits.sigmoid(), strict=True)
        return [best_pairs(b, s, confidence=confidence, most=most) for b, s in pairs]

    def _call(self, model: nn.Module, images: Tensor) -> Any:
        return model(images)

    def _read(self, outputs: Any) -> tuple[Tensor, Tensor]:
        """Logits and boxes in what the model returned."""
        raise NotImplementedError

    def _no_object(self) -> bool:
        return False


class Transformers(_Queries):
    """transformers' ``…ForObjectDetection``: DETR, Conditional DETR, YOLOS, RT-DETR and those that return the same.

    DETR and YOLOS have a no-object column, one more than the configuration has labels; the others have none. Explained
    by default are the decoder's input maps (RT-DETR, Deformable DETR), the encoder's memory (DETR, Conditional DETR), or
    what the last block reads (YOLOS: behind it, patches have no part in the detections any more).
    """

    title = "transformers (DETR, Conditional DETR, YOLOS, RT-DETR)"

    def __init__(self, model: nn.Module, names: Any = None) -> None:
        super().__init__(model, names or getattr(model.config, "id2label", None))

    @staticmethod
    def recognises(model: nn.Module) -> bool:
        parts = (model, getattr(getattr(model, "model", None), "decoder", None))
        has_boxes = any(hasattr(part, name) for part in parts for name in ("bbox_predictor", "bbox_embed"))
        return has_boxes and hasattr(getattr(model, "config", None), "num_labels")

    def layers(self) -> list[str]:
        if hasattr(self.model, "vit"):
            blocks = next(name for name in ("encoder.layer", "layers") if _has_path(self.model.vit, name))
            last = len(self.model.get_submodule(f"vit.{blocks}")) - 1  # type: ignore[arg-type]
            return [f"vit.{blocks}.{last}.layernorm_before"]
        for name in ("decoder_input_proj", "input_proj"):
            levels = getattr(self.model.model, name, None)
            if isinstance(levels, nn.ModuleList):
                return [f"model.{name}.{index}" for index in range(len(levels))]
        return ["model.encoder"]

    def _call(self, model: nn.Module, images: Tensor) -> Any:
        return model(pixel_values=images)

    @property
    def fixed_rows(self) -> bool:  # type: ignore[override]
        return not hasattr(
            getattr(self.model, "model", None), "decoder_input_proj"
        )  # its queries are each image's best cells

    def reshape(self, size: tuple[int, int]) -> Reshape | None:
        if not hasattr(self.model, "vit"):
            return None
        patch = self.model.config.patch_size  # type: ignore[union-attr]
        height, width = (side // step for side, step in zip(size, _pair(patch), strict=True))
        return lambda tokens: tokens[:, 1 : 1 + height * width].transpose(1, 2).unflatten(2, (height, width))

    def _read(self, outputs: Any) -> tuple[Tensor, Tensor]:
        return outputs["logits"], outputs["pred_boxes"]

    def _no_object(self) -> bool:
        head = getattr(self.model, "class_labels_classifier", None)
        linear = [m for m in head.modules() if isinstance(m, nn.Linear)] if isinstance(head, nn.Module) else []
        return bool(linear) and linear[-1].out_features == int(self.model.config.num_labels) + 1  # type: ignore


class LibreQueries(_Queries):
    """libreyolo's DETR (softmax with a no-object column), and its RT-DETR, D-FINE and DEIM (sigmoid, none).

    Outputs are a dictionary with ``pred_logits`` and ``pred_boxes``.
    """

    title = "libreyolo (DETR, RT-DETR, D-FINE)"

    @property
    def fixed_rows(self) -> bool:  # type: ignore[override]
        return self._no_object()

    @staticmethod
    def recognises(model: nn.Module) -> bool:
        detr = all(hasattr(model, name) for name in ("transformer", "class_embed", "bbox_embed", "input_proj"))
        decoder = getattr(model, "decoder", None)
        return detr or (isinstance(getattr(decoder, "input_proj", None), nn.ModuleList) and hasattr(model, "encoder"))

    def layers(self) -> list[str]:
        if hasattr(self.model, "transformer"):
            return ["input_proj"]
        return [f"decoder.input_proj.{index}" for index in range(len(self.model.decoder.input_proj))]  # type: ignore

    def _read(self, outputs: Any) -> tuple[Tensor, Tensor]:
        return outputs["pred_logits"], outputs["pred_boxes"]

    def _no_object(self) -> bool:
        return hasattr(self.model, "transformer")


class UltralyticsRTDETR(_Queries):
    """ultralytics' RT-DETR: logits and boxes of the last decoder layer are in the second output, (1, B, Q, …)."""

    title = "ultralytics RT-DETR"
    fixed_rows = False  # the decoder starts from the best cells of each image

    @staticmethod
    def recognises(model: nn.Module) -> bool:
        head = _last(model)
        return all(hasattr(head, name) for name in ("dec_score_head", "dec_bbox_head", "num_queries", "f"))

    def layers(self) -> list[str]:
        return [f"model.{index}" for index in _last(self.model).f]

    def _read(self, outputs: Any) -> tuple[Tensor, Tensor]:
        boxes, logits = outputs[1][:2]
        return logits[-1], boxes[-1]


def _checked(outputs: Any) -> Queries:
    if not isinstance(outputs, Queries):
        raise TypeError(
            "the boxes of this model are fractions of the image, whose size its outputs do not hold: call it through "
            "family.forward(model, images), and pass forward=family.forward to CAM."
        )
    return outputs


def _last(model: nn.Module) -> Any:
    parts = getattr(model, "model", None)
    return parts[-1] if isinstance(parts, nn.Sequential) and len(parts) else None


def _has_path(module: Any, path: str) -> bool:
    for name in path.split("."):
        if not hasattr(module, name):
            return False
        module = getattr(module, name)
    return True


def _pair(value: Any) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else tuple(value)
