"""One image in, heatmap and overlay out."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from cam_engine.cam import CAM
from cam_engine.layers import LayerSpec
from cam_engine.pictures import to_pictures
from cam_engine.targets.resolve import TargetSpec

Preprocess = Callable[[Image.Image], Tensor]


class Explanation(dict[str, Any]):
    """What :func:`explain` found; a dictionary that shows its overlay in a notebook."""

    def _repr_png_(self) -> bytes:
        from cam_engine.render import encode_png

        return encode_png(self["overlay"])


def explain(
    model: nn.Module,
    image: Any,
    method: str = "gradcam",
    target_layer: LayerSpec | None = None,
    target: TargetSpec = None,
    eigen_smooth: bool = False,
    aug_smooth: bool = False,
    alpha: float = 0.5,
    save: bool = False,
    output_path: str | os.PathLike[str] | None = None,
    preprocess: Preprocess | None = None,
) -> Explanation:
    """Explain one image.

    Args:
        model: A classifier; left as it was.
        image: A path, encoded bytes, a PIL image, an array (H, W, 3) or (H, W) uint8, or a tensor (C, H, W) or (1, C, H, W)
            as the model gets it.
        method: Name from :func:`cam_engine.available_methods`.
        target_layer: As ``layers`` of :class:`cam_engine.CAM`; None is ``"auto"``.
        target: None (the predicted class), a class index, or a callable ``(outputs) -> Tensor (1,)``.
        eigen_smooth, aug_smooth: As for :class:`cam_engine.CAM`.
        alpha: Share of the heatmap's colour in the overlay, 0 to 1.
        save: Write overlay, heatmap (PNG and ``.npy``) and ``metadata.json`` to a folder of their own.
        output_path: That folder; by default ``runs/<method>/<image name>``. An existing one is never written over: a number
            is appended.
        preprocess: From a PIL image to the model's input (C, H, W). By default RGB in [0, 1]; pass what the model was
            trained with.

    Returns:
        ``heatmap`` (H, W) float32 in [0, 1] and ``overlay`` (H, W, 3) uint8 RGB in the original image's size,
        ``original_image`` (PIL), ``method``, ``target_layer``, ``score``, and ``saved_path`` when ``save`` is set.

    Raises:
        TypeError, ValueError: An image of another kind or shape.
        FileNotFoundError: No such file.
    """
    from cam_engine.render import overlay, upsample

    original, tensor, name = _read(image, preprocess)
    cam = CAM(model, method, target_layer or "auto", eigen_smooth=eigen_smooth, aug_smooth=aug_smooth)
    result = cam(tensor, target, outputs=True)
    found = result.methods[0]
    pixels = np.asarray(original)
    heatmap = upsample(result[found][0].float().cpu().numpy(), pixels.shape[:2]).clip(0, 1)
    explained = Explanation(
        heatmap=heatmap,
        overlay=overlay(pixels, heatmap if bool(result.valid[found][0]) else None, alpha=alpha),
        original_image=original,
        method=found,
        target_layer=", ".join(result.layers),
        score=None if result.scores is None else float(result.scores[0]),
    )
    if save:
        folder = _new_folder(Path("runs", found, name) if output_path is None else Path(output_path))
        explained["saved_path"] = str(_save(explained, folder, target, eigen_smooth, aug_smooth))
    return explained


def _read(image: Any, preprocess: Preprocess | None) -> tuple[Image.Image, Tensor, str]:
    """The original picture (RGB), the model's input (1, C, H, W), and a name for files."""
    name = "image"
    if isinstance(image, Tensor):
        tensor = image[None] if image.ndim == 3 else image
        if tensor.ndim != 4 or len(tensor) != 1:
            raise ValueError(f"an image tensor must have shape (C, H, W) or (1, C, H, W), not {tuple(image.shape)}.")
        return Image.fromarray(to_pictures(tensor)[0]), tensor, name
    if isinstance(image, (str, os.PathLike)):
        name = Path(image).stem
        image = Image.open(image)
    elif isinstance(image, bytes):
        image = Image.open(io.BytesIO(image))
    elif isinstance(image, np.ndarray):
        if image.dtype != np.uint8 or image.ndim not in (2, 3):
            raise TypeError(
                f"an image array must be uint8 of shape (H, W, 3) or (H, W), not {image.dtype} of shape {image.shape}."
            )
        image = Image.fromarray(image)
    if not isinstance(image, Image.Image):
        raise TypeError(f"image must be a path, bytes, PIL image, array or tensor, not {type(image).__name__}.")
    original = image.convert("RGB")
    tensor = _unit(np.asarray(original)) if preprocess is None else preprocess(original)
    return original, tensor if tensor.ndim == 4 else tensor[None], name


def _unit(pixels: NDArray[np.uint8]) -> Tensor:
    return torch.from_numpy(pixels.copy()).permute(2, 0, 1).float() / 255


def _new_folder(folder: Path) -> Path:
    """The folder, or the first of ``folder-2``, ``folder-3``, … that does not exist; made."""
    wanted, number = folder, 2
    while True:
        try:
            folder.mkdir(parents=True)
            return folder
        except FileExistsError:
            folder, number = wanted.with_name(f"{wanted.name}-{number}"), number + 1


def _save(explained: Explanation, folder: Path, target: Any, eigen_smooth: bool, aug_smooth: bool) -> Path:
    from cam_engine.render import write_png

    heatmap: NDArray[np.float32] = explained["heatmap"]
    grey = (heatmap * 255).round().astype(np.uint8)
    write_png(folder / "overlay.png", explained["overlay"])
    write_png(folder / "heatmap.png", np.repeat(grey[:, :, None], 3, axis=2))
    np.save(folder / "heatmap.npy", heatmap, allow_pickle=False)
    metadata = {
        "method": explained["method"],
        "target_layer": explained["target_layer"],
        "target": target if isinstance(target, int) else None if target is None else str(target),
        "score": explained["score"],
        "image_size": list(heatmap.shape),
        "eigen_smooth": eigen_smooth,
        "aug_smooth": aug_smooth,
    }
    (folder / "metadata.json").write_text(json.dumps(metadata, indent=1), encoding="utf-8")
    return folder
