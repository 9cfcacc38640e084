"""The fixed images that are looked at all through a training."""

from __future__ import annotations

import copy
import hashlib
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cam_callbacks.boxes_file import read_boxes
from cam_callbacks.datasets import images_in_folder, read_items
from cam_engine.guard import random_streams
from cam_engine.metrics import coverage
from cam_engine.pictures import to_pictures

Channels = Sequence[float] | float | None


class ProbeSet:
    """A fixed set of images with what is known about them.

    Args:
        images: (N, C, H, W) float, as the model gets them (normalised).
        labels: N class indices; None where a task has none.
        masks: (N, H, W) bool, the region that a model should look at. An image with an empty mask has no such number.
        boxes: N lists of xyxy boxes in pixels; where there are no masks, their union is the region. Or the file of boxes that a
            person drew on the page (``cam-callbacks annotate``), which may hold suspected regions too.
        ids: N names, unique; by default "0", "1", ….
        groups: N tags of any kind (hospital, camera).
        class_names: Name of each class.
        mean, std: What the images were normalised with, one number or one for each channel, so that a person sees the
            picture as it was. Without them the pictures are scaled to the range of the whole probe.
        nuisance: (N, H, W) bool, a region that a model is suspected to look at and should not.
        box_labels: N lists with the class of each box, for detectors.
        counterfactual: (N, C, H, W), the same images with a suspected cue swapped or removed, normalised alike: every look
            then measures the fall in accuracy, ``counterfactual_gap``. Needs labels.

    Raises:
        TypeError, ValueError: Something has the wrong kind, shape or range; the message says which.
    """

    def __init__(
        self,
        images: Tensor,
        labels: Tensor | Sequence[int] | None = None,
        masks: Tensor | NDArray[np.bool_] | None = None,
        boxes: Sequence[Any] | str | os.PathLike[str] | None = None,
        ids: Sequence[str] | None = None,
        groups: Sequence[str] | None = None,
        class_names: Sequence[str] | None = None,
        mean: Channels = None,
        std: Channels = None,
        nuisance: Tensor | NDArray[np.bool_] | None = None,
        box_labels: Sequence[Sequence[int]] | None = None,
        counterfactual: Tensor | None = None,
    ) -> None:
        self.images = _check_images(images)
        n, channels, height, width = self.images.shape
        if isinstance(boxes, (str, os.PathLike)):
            marked = read_boxes(boxes, list(map(str, range(n) if ids is None else ids)), (height, width))
            boxes, nuisance = marked.boxes, marked.nuisance if nuisance is None else nuisance
        self.class_names = None if class_names is None else [str(name) for name in class_names]
        self.labels = _check_labels(labels, n, self.class_names)
        self.masks = _check_masks("masks", masks, (n, height, width))
        self.nuisance = _check_masks("nuisance", nuisance, (n, height, width))
        self.boxes = _check_boxes(boxes, n, (height, width))
        self.box_labels = _check_box_labels(box_labels, self.boxes)
        self.counterfactual = None if counterfactual is None else _check_images(counterfactual, "counterfactual")
        if self.counterfactual is not None and self.counterfactual.shape != self.images.shape:
            raise ValueError(
                f"counterfactual has shape {tuple(self.counterfactual.shape)}; it must hold the same images as the probe's "
                f"{tuple(self.images.shape)}."
            )
        if self.counterfactual is not None and self.labels is None:
            raise ValueError("counterfactual needs labels: the gap is a difference of accuracies.")
        self.ids = [str(i) for i in range(n)] if ids is None else _check_names("ids", ids, n)
        if len(set(self.ids)) != n:
            raise ValueError("ids must be unique: records and pictures are filed under them.")
        self.groups = None if groups is None else _check_names("groups", groups, n)
        self.mean = _check_channels("mean", mean, channels)
        self.std = _check_channels("std", std, channels)
        if self.std is not None and (self.std <= 0).any():
            raise ValueError(f"std must be above 0 in every channel, not {self.std.tolist()}.")

    def with_boxes(self, boxes: str | os.PathLike[str]) -> ProbeSet:
        """The same images, with the boxes and suspected regions of a file in place of masks and boxes.

        Raises:
            FileNotFoundError, ValueError: As :func:`cam_callbacks.boxes_file.read_boxes`.
        """
        height, width = self.images.shape[-2:]
        marked, probe = read_boxes(boxes, self.ids, (height, width)), copy.copy(self)
        probe.masks, probe.box_labels = None, None
        probe.boxes = _check_boxes(marked.boxes, len(self), (height, width))
        probe.nuisance = self.nuisance if marked.nuisance is None else marked.nuisance
        return probe

    def __len__(self) -> int:
        return len(self.images)

    def __repr__(self) -> str:
        known = [name for name in ("labels", "masks", "boxes", "nuisance", "groups") if getattr(self, name) is not None]
        size = "x".join(map(str, self.images.shape[1:]))
        return f"ProbeSet({len(self)} images of {size}{', with ' + ', '.join(known) if known else ''})"

    @property
    def fingerprint(self) -> str:
        """SHA-256 (hex) over pixels, labels and their order; equal probes have equal fingerprints, on any machine."""
        digest = hashlib.sha256()
        digest.update(repr(tuple(self.images.shape)).encode())
        digest.update(np.ascontiguousarray(self.images.numpy().astype("<f4")).tobytes())
        digest.update(b"none" if self.labels is None else self.labels.numpy().astype("<i8").tobytes())
        return digest.hexdigest()

    @property
    def has_regions(self) -> bool:
        """Is it known where a model should look, for at least one image?"""
        return self.regions((1, 1)) is not None

    def regions(self, grid: tuple[int, int]) -> NDArray[np.float64] | None:
        """On-target coverage of every cell of a grid, (N, h, w) in [0, 1]; None where neither masks nor boxes are known."""
        masks = self.region_masks
        return None if masks is None else coverage(masks, grid)

    @property
    def region_masks(self) -> NDArray[np.bool_] | None:
        """The on-target region of each image in pixels, (N, H, W) bool: the masks, or else the union of the boxes."""
        if self.masks is not None:
            return self.masks
        if self.boxes is None:
            return None
        height, width = self.images.shape[-2:]
        filled = np.zeros((len(self), height, width), dtype=bool)
        for mask, boxes in zip(filled, self.boxes, strict=True):
            for x1, y1, x2, y2 in boxes:
                mask[int(np.floor(y1)) : int(np.ceil(y2)), int(np.floor(x1)) : int(np.ceil(x2))] = True
        return filled

    def pictures(self) -> NDArray[np.uint8]:
        """The images as a person sees them: (N, H, W, 3) uint8 RGB.

        With mean and std the normalisation is undone; without, images within [0, 1] are taken as they are and others
        are scaled to the range of the whole probe. One channel becomes grey; of more than three the first three are
        shown, of two the first.
        """
        return to_pictures(self.images, self.mean, self.std)

    def class_name(self, index: int) -> str:
        """Name of a class, or its number where it has none."""
        if self.class_names is not None and 0 <= index < len(self.class_names):
            return self.class_names[index]
        return str(index)

    @classmethod
    def from_dataset(
        cls,
        dataset: Any,
        n: int = 16,
        seed: int = 0,
        *,
        mean: Channels = None,
        std: Channels = None,
        class_names: Sequence[str] | None = None,
    ) -> ProbeSet:
        """Choose ``n`` images of a map-style dataset, balanced over classes and reproducibly.

        Items may be images, ``(image, label)`` tuples, or dictionaries (``image``/``pixel_values``/``img``,
        ``label``/``labels``/``target``, ``mask``, ``boxes``). No random state is touched, whatever the dataset's
        transforms draw.
        """
        with random_streams():
            items = read_items(dataset, n, seed)
        names = class_names if class_names is not None else getattr(dataset, "classes", None)
        return cls(**items, class_names=names, mean=mean, std=std)

    @classmethod
    def from_datamodule(
        cls, datamodule: Any, n: int = 16, seed: int = 0, *, mean: Channels = None, std: Channels = None
    ) -> ProbeSet:
        """Choose ``n`` images of a LightningDataModule's (first) validation dataset; ``setup("validate")`` is called if needed."""
        with random_streams():
            try:
                dataset = loader_dataset(datamodule.val_dataloader())
            except (AttributeError, TypeError, ValueError):
                datamodule.prepare_data()
                datamodule.setup("validate")
                dataset = loader_dataset(datamodule.val_dataloader())
        return cls.from_dataset(dataset, n, seed, mean=mean, std=std)

    @classmethod
    def from_folder(
        cls,
        folder: str | Path,
        n: int | None = None,
        seed: int = 0,
        *,
        size: int | None = None,
        mean: Channels = None,
        std: Channels = None,
    ) -> ProbeSet:
        """Read pictures from a folder: one sub-folder a class, or pictures directly in it (then there are no labels).

        Args:
            folder: The folder.
            n: How many, balanced over classes; None takes all.
            seed: For the choice.
            size: Side in pixels: the shorter side is resized to it and the centre cropped. Needed if pictures differ in
                size.
            mean, std: Normalisation that the model expects, applied to pixels in [0, 1].

        Raises:
            FileNotFoundError: No such folder, or no picture in it.
            ValueError: Pictures of different sizes and no ``size``.
        """
        dataset = images_in_folder(Path(folder), size)
        with random_streams():
            items = read_items(dataset, len(dataset) if n is None else n, seed)
        channels = items["images"].shape[1]
        shift, scale = _check_channels("mean", mean, channels), _check_channels("std", std, channels)
        if shift is not None:
            items["images"] = items["images"] - torch.as_tensor(shift, dtype=torch.float32)[:, None, None]
        if scale is not None:
            items["images"] = items["images"] / torch.as_tensor(scale, dtype=torch.float32)[:, None, None]
        return cls(**items, class_names=dataset.classes or None, mean=mean, std=std)


def loader_dataset(loaders: Any) -> Any:
    """The dataset of the first loader in whatever ``val_dataloader()`` returned."""
    while not hasattr(loaders, "dataset"):
        if isinstance(loaders, dict):
            loaders = next(iter(loaders.values()))
        elif isinstance(loaders, (list, tuple)) and loaders:
            loaders = loaders[0]
        elif hasattr(loaders, "iterables"):  # Lightning's CombinedLoader
            loaders = loaders.iterables
        else:
            raise ValueError(f"no dataset found in the validation loader ({type(loaders).__name__}).")
    return loaders.dataset


def _check_images(images: Any, name: str = "images") -> Tensor:
    if isinstance(images, np.ndarray):
        images = torch.from_numpy(images)
    if not isinstance(images, Tensor):
        raise TypeError(f"{name} must be a Tensor (N, C, H, W), not {type(images).__name__}.")
    if images.ndim != 4 or 0 in images.shape:
        raise ValueError(f"{name} must have shape (N, C, H, W) with N of at least 1, not {tuple(images.shape)}.")
    if not images.is_floating_point():
        raise TypeError(f"{name} must be floating point, as the model gets them, not {images.dtype}.")
    bad = (~images.isfinite()).flatten(1).any(1).nonzero().flatten().tolist()
    if bad:
        raise ValueError(
            f"{name} holds NaN or infinite pixels, in image {', '.join(map(str, bad[:5]))}; look at its normalisation."
        )
    return images.detach().to("cpu", torch.float32).clone()


def _check_labels(labels: Any, n: int, class_names: list[str] | None) -> Tensor | None:
    if labels is None:
        return None
    tensor = torch.as_tensor(labels).detach().cpu()
    if tensor.is_floating_point() or tensor.dtype == torch.bool:
        raise TypeError(f"labels must be class indices (integers), not {tensor.dtype}.")
    if tensor.shape != (n,):
        raise ValueError(f"labels has shape {tuple(tensor.shape)} for {n} images; one class index for each is needed.")
    if int(tensor.min()) < 0:
        raise ValueError(f"labels holds {int(tensor.min())}; class indices are 0 and above.")
    if class_names is not None and int(tensor.max()) >= len(class_names):
        raise ValueError(f"labels holds class {int(tensor.max())}, but class_names has {len(class_names)} names.")
    return tensor.long()


def _check_masks(name: str, masks: Any, shape: tuple[int, int, int]) -> NDArray[np.bool_] | None:
    if masks is None:
        return None
    array = masks.detach().cpu().numpy() if isinstance(masks, Tensor) else np.asarray(masks)
    if array.shape != shape:
        raise ValueError(f"{name} has shape {array.shape}; the images need {shape}.")
    if array.dtype != bool:
        if not np.isin(array, (0, 1)).all():
            raise TypeError(
                f"{name} must be bool (True where the region is), not {array.dtype} with other values than 0 and 1."
            )
        array = array.astype(bool)
    return array.copy()


def _check_boxes(boxes: Any, n: int, size: tuple[int, int]) -> list[NDArray[np.float64]] | None:
    if boxes is None:
        return None
    if len(boxes) != n:
        raise ValueError(
            f"boxes holds {len(boxes)} lists for {n} images; pass one list for each, empty where there is none."
        )
    checked = []
    for index, image_boxes in enumerate(boxes):
        array = np.asarray(image_boxes, dtype=np.float64).reshape(-1, 4) if len(image_boxes) else np.zeros((0, 4))
        x1, y1, x2, y2 = array.T
        inside = (x1 >= 0) & (y1 >= 0) & (x2 <= size[1]) & (y2 <= size[0])
        if not ((x1 < x2) & (y1 < y2) & inside).all():
            raise ValueError(
                f"boxes[{index}] holds {array.tolist()}; boxes are x1, y1, x2, y2 in pixels with x1 < x2 and y1 < y2, "
                f"inside the {size[1]}x{size[0]} image."
            )
        checked.append(array)
    return checked


def _check_box_labels(
    labels: Sequence[Sequence[int]] | None, boxes: list[NDArray[np.float64]] | None
) -> list[list[int]] | None:
    if labels is None:
        return None
    counts = None if boxes is None else [len(image_boxes) for image_boxes in boxes]
    if counts != [len(image_labels) for image_labels in labels]:
        raise ValueError(f"box_labels must hold one class for each box; the images have {counts} boxes.")
    return [[int(label) for label in image_labels] for image_labels in labels]


def _check_names(name: str, values: Iterable[Any], n: int) -> list[str]:
    names = [str(value) for value in values]
    if len(names) != n:
        raise ValueError(f"{name} holds {len(names)} names for {n} images.")
    return names


def _check_channels(name: str, values: Channels, channels: int) -> NDArray[np.float32] | None:
    if values is None:
        return None
    array = np.asarray(values, dtype=np.float32).reshape(-1)
    if array.size not in (1, channels):
        raise ValueError(f"{name} has {array.size} numbers for {channels} channels; pass one, or one for each.")
    return np.broadcast_to(array, (channels,)).copy()
