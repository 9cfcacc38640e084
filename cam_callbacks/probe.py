"""The fixed images that are looked at all through a training."""

from __future__ import annotations

import copy
import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cam_callbacks.batches import read_batch
from cam_callbacks.boxes_file import read_boxes
from cam_callbacks.datasets import read_items
from cam_callbacks.inputs import Inputs
from cam_callbacks.loaders import draw, first_loader
from cam_callbacks.picture_folder import images_in_folder
from cam_callbacks.probe_checks import (
    Channels,
    check_box_labels,
    check_boxes,
    check_channels,
    check_class_maps,
    check_images,
    check_label_sets,
    check_labels,
    check_masks,
    check_names,
    check_shown,
    check_values,
)
from cam_callbacks.unchanged import unchanged
from cam_engine.guard import random_streams
from cam_engine.metrics import coverage
from cam_engine.pictures import to_pictures

KNOWN = ("labels", "label_sets", "class_maps", "values", "masks", "boxes", "nuisance", "groups")  # what repr names


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
        label_sets: (N, K) bool, in place of labels where an image may have several classes.
        class_maps: (N, H, W) int, the class of each pixel; 255 and negative numbers are ignored, and kept as −1.
        values: (N,) or (N, D), what a regression predicts.
        inputs: What the model's forward takes beside the images: names, or a sequence in its order, of tensors with a row
            for each image; or the whole batch, with ``images`` itself in it.
        shown: (N, H, W, 3) uint8 RGB, the pictures for people, where they are known; else they are made from ``images``.
        dtype: Of the images as the model gets them, where it takes integers: ``torch.uint8``.

    Raises:
        TypeError, ValueError: Something has the wrong kind, shape or range; the message says which.

    >>> from cam_callbacks import ProbeSet
    >>> masks = torch.zeros(6, 32, 32, dtype=torch.bool)
    >>> masks[:, 8:24, 8:24] = True
    >>> probe = ProbeSet(images, labels, masks, class_names=["cat", "dog", "owl"])
    >>> "cam/on_target_enrichment/gradcam" in CAMMonitor(probe).look(model).metrics
    True
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
        label_sets: Tensor | NDArray[np.bool_] | None = None,
        class_maps: Tensor | NDArray[np.int64] | None = None,
        values: Tensor | Sequence[float] | None = None,
        inputs: Mapping[str, Any] | Sequence[Any] | Inputs | None = None,
        shown: NDArray[np.uint8] | Tensor | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        self.images, self.dtype = check_images(images, dtype=dtype), dtype
        n, channels, height, width = self.images.shape
        if isinstance(boxes, (str, os.PathLike)):
            marked = read_boxes(boxes, list(map(str, range(n) if ids is None else ids)), (height, width))
            boxes, nuisance = marked.boxes, marked.nuisance if nuisance is None else nuisance
        self.class_names = None if class_names is None else [str(name) for name in class_names]
        self.labels = check_labels(labels, n, self.class_names)
        self.label_sets = check_label_sets(label_sets, n, self.class_names)
        if self.labels is not None and self.label_sets is not None:
            raise ValueError("labels and label_sets were both given; an image has one class, or a set of them.")
        self.class_maps = check_class_maps(class_maps, (n, height, width), self.class_names)
        self.values = check_values(values, n)
        self.inputs = None if inputs is None else Inputs.beside(images, inputs, n)
        self.shown = check_shown(shown, (n, height, width))
        self.masks = check_masks("masks", masks, (n, height, width))
        self.nuisance = check_masks("nuisance", nuisance, (n, height, width))
        self.boxes = check_boxes(boxes, n, (height, width))
        self.box_labels = check_box_labels(box_labels, self.boxes)
        self.counterfactual = None if counterfactual is None else check_images(counterfactual, "counterfactual", dtype)
        if self.counterfactual is not None and self.counterfactual.shape != self.images.shape:
            raise ValueError(
                f"counterfactual has shape {tuple(self.counterfactual.shape)}; it must hold the same images as the probe's "
                f"{tuple(self.images.shape)}."
            )
        if self.counterfactual is not None and self.labels is None:
            raise ValueError("counterfactual needs labels: the gap is a difference of accuracies.")
        self.ids = [str(i) for i in range(n)] if ids is None else check_names("ids", ids, n)
        if len(set(self.ids)) != n:
            raise ValueError("ids must be unique: records and pictures are filed under them.")
        self.groups = None if groups is None else check_names("groups", groups, n)
        self.mean = check_channels("mean", mean, channels)
        self.std = check_channels("std", std, channels)
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
        probe.boxes = check_boxes(marked.boxes, len(self), (height, width))
        probe.nuisance = self.nuisance if marked.nuisance is None else marked.nuisance
        return probe

    def __len__(self) -> int:
        return len(self.images)

    def __repr__(self) -> str:
        known = [name.replace("_", " ") for name in KNOWN if getattr(self, name) is not None]
        known += [] if self.inputs is None else [f"inputs{name}" for name in self.inputs.names]
        size = "x".join(map(str, self.images.shape[1:])) + ("" if self.dtype is None else f" {self.dtype}")
        return f"ProbeSet({len(self)} images of {size}{', with ' + ', '.join(known) if known else ''})"

    @property
    def fingerprint(self) -> str:
        """SHA-256 (hex) over pixels, further inputs, what is to be predicted, and their order; equal probes have equal
        fingerprints, on any machine."""
        digest = hashlib.sha256()
        digest.update(repr(tuple(self.images.shape)).encode())
        digest.update(np.ascontiguousarray(self.images.numpy().astype("<f4")).tobytes())
        digest.update(b"none" if self.labels is None else self.labels.numpy().astype("<i8").tobytes())
        for name, kind in (("label_sets", "?"), ("class_maps", "<i8"), ("values", "<f4")):
            if (known := getattr(self, name)) is not None:
                digest.update(f"{name}{tuple(known.shape)}".encode() + known.numpy().astype(kind).tobytes())
        digest.update(b"" if self.inputs is None else self.inputs.digest())
        digest.update(b"" if self.dtype is None else str(self.dtype).encode())
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

        Those that were given as ``shown``. Else with mean and std the normalisation is undone; without, images within
        [0, 1] are taken as they are and others are scaled to the range of the whole probe. One channel becomes grey; of
        more than three the first three are shown, of two the first.
        """
        if self.shown is not None:
            return self.shown
        return to_pictures(self.images / 255 if self.dtype == torch.uint8 else self.images, self.mean, self.std)

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
        transforms draw, and what the dataset counts or caches is put back. Pictures of 0 to 255 are divided by 255; nothing
        else is done to them, so what the collate function or a batch hook does is not in them: ``from_datamodule``.
        """
        with unchanged(dataset):
            items = read_items(dataset, n, seed)
        names = class_names if class_names is not None else getattr(dataset, "classes", None)
        return cls(**items, class_names=names, mean=mean, std=std)

    @classmethod
    def from_datamodule(
        cls, datamodule: Any, n: int = 16, seed: int = 0, *, mean: Channels = None, std: Channels = None
    ) -> ProbeSet:
        """Choose ``n`` images of a LightningDataModule's (first) validation dataset; ``setup("validate")`` is called if needed.

        They go through its loader's collate function and its own batch hooks, on the CPU; hooks that ask its trainer are told
        that it validates.
        """
        with random_streams():
            try:
                loader = first_loader(datamodule.val_dataloader())
            except (AttributeError, TypeError, ValueError):
                datamodule.prepare_data()
                datamodule.setup("validate")
                loader = first_loader(datamodule.val_dataloader())
        with unchanged(loader, datamodule), _without_trainer(datamodule):
            drawn = draw(loader, n, seed)
            batch = datamodule.on_before_batch_transfer(drawn.batch, 0)
            batch = datamodule.transfer_batch_to_device(batch, torch.device("cpu"), 0)
            batch = datamodule.on_after_batch_transfer(batch, 0)
            read = read_batch(replace(drawn, batch=batch), n, loader, datamodule)
        given = {name: value for name, value in (("mean", mean), ("std", std)) if value is not None}
        return cls(**read | given)

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
        shift, scale = check_channels("mean", mean, channels), check_channels("std", std, channels)
        if shift is not None:
            items["images"] = items["images"] - torch.as_tensor(shift, dtype=torch.float32)[:, None, None]
        if scale is not None:
            items["images"] = items["images"] / torch.as_tensor(scale, dtype=torch.float32)[:, None, None]
        return cls(**items, class_names=dataset.classes or None, mean=mean, std=std)


@contextmanager
def _without_trainer(datamodule: Any) -> Iterator[None]:
    """Hooks that ask the trainer which stage it is in find a validation, where there is no trainer."""
    stages = dict.fromkeys(("training", "testing", "predicting", "sanity_checking"), False)
    if missing := getattr(datamodule, "trainer", None) is None:
        datamodule.trainer = SimpleNamespace(**stages, validating=True, datamodule=datamodule)
    try:
        yield
    finally:
        if missing:
            datamodule.trainer = None
