"""Every forward of a model also saves where it looked."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from cam_engine.explanation.feature_maps import write_feature_maps
from cam_engine.explanation.forwarded import finder, images_of, sources_of
from cam_engine.explanation.one_image import explain_picture
from cam_engine.explanation.reading import Picture, read
from cam_engine.explanation.request import LayerChoice, Request
from cam_engine.explanation.saving import new_folder, save_explanation
from cam_engine.explanation.spellings import IN_AUTOSAVE, MethodName, understands
from cam_engine.loading import Loaded, load_model

log = logging.getLogger(__name__)

SETTINGS = (
    *("target", "class_names", "aggregate", "alpha", "colormap", "caption"),
    *("classes", "per", "items", "matching", "k", "confidence", "iou", "max_detections"),
)
"""What :class:`AutoSave` takes for :class:`Request` beside the method and the layer."""


@dataclass
class Saved:
    """What was saved: one folder for each image, in order; ``errors`` are what went wrong, and were only logged."""

    paths: list[Path] = field(default_factory=list)
    feature_map_paths: list[Path] = field(default_factory=list)
    errors: list[Exception] = field(default_factory=list)


class AutoSave:
    """A model whose every forward saves a heatmap of its images, until :meth:`disable`.

    It is called, and has the attributes, of the model that it holds: ``model = AutoSave(model); results = model(images)``.
    What the forward returns is unchanged; an error in saving is logged and never reaches the caller. Each image gets a folder
    of its own, with the files of :func:`cam_engine.explain`. Where the library was given files or pictures (ultralytics,
    libreyolo), the folder has the image's name and the overlay its own pixels; images that come as tensors are numbered, and
    drawn as the network got them.

    Args:
        model: As for :func:`cam_engine.explain`. An ultralytics ``YOLO`` may be called and predict as usual.
        method: As for :func:`cam_engine.explain`. Also ``cam_method``.
        layer: As ``target_layer`` of :func:`cam_engine.explain`. Also ``cam_layer``.
        folder: Where the images' folders are made.
        feature_maps: Also save feature maps: True, or layers as :func:`cam_engine.save_feature_maps` takes them. Also
            ``save_feature_maps``.
        enabled: Start at once. Also ``save_eigen_cam``.
        settings: ``alpha``, ``colormap``, ``caption``, ``target``, ``class_names``, ``aggregate``, and for detectors ``classes``,
            ``per``, ``items``, ``matching``, ``k``, ``confidence``, ``iou``, ``max_detections``, as for
            :func:`cam_engine.explain`.

    Attributes:
        saved: What was saved so far, :class:`Saved`.

    >>> from cam_engine import AutoSave
    >>> saving = AutoSave(model, "gradcam", folder="saved")
    >>> outputs = saving(images[:2])  # as from the model
    >>> saving.disable()
    >>> [path.name for path in saving.saved.paths]
    ['000001', '000002']
    """

    @understands(IN_AUTOSAVE)
    def __init__(
        self,
        model: Any,
        method: MethodName | Sequence[MethodName] = "eigencam",
        layer: LayerChoice | None = None,
        folder: str | os.PathLike[str] = "runs/autosave",
        *,
        feature_maps: bool | Sequence[Any] | str = False,
        enabled: bool = True,
        **settings: Any,
    ) -> None:
        self.saved = Saved()
        self._model = model
        self._loaded = load_model(model)
        self._request = _request(method, layer, settings)
        self._folder, self._number = Path(folder), 0
        self._sources: list[Any] = []
        self._seen = 0  # images of the current call
        self._feature_maps: Any = "all" if feature_maps is True else feature_maps
        self._running = threading.local()
        self._handles: list[Any] = []
        self._hook: Callable[..., None] | None = None
        if enabled:
            self.enable()

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        self._sources, self._seen = sources_of(args, kwargs), 0
        try:
            return self._model(*args, **kwargs)
        finally:
            self._sources = []

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(self._model, name)

    @property
    def paths(self) -> list[Path]:
        """The folders that were written, in order."""
        return self.saved.paths

    def enable(self) -> None:
        """Save from now on."""
        if self._hook is not None:
            return

        # A function, not a method: ultralytics copies its network with all its hooks, and would copy all this too.
        def hook(module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
            self._after(module, args, kwargs)

        self._hook = hook
        for net in self._nets():
            self._handles.append(net.register_forward_hook(hook, with_kwargs=True))

    def disable(self) -> None:
        """Save no more, and leave no hook on the model."""
        for handle in self._handles:
            handle.remove()
        for net in self._nets():  # copies that a predictor made meanwhile
            for key in [key for key, hook in net._forward_hooks.items() if hook is self._hook]:
                net._forward_hooks.pop(key)
                net._forward_hooks_with_kwargs.pop(key, None)
        self._handles, self._hook = [], None

    def _nets(self) -> list[nn.Module]:
        """The network, and the copies of it in an ultralytics predictor."""
        nets = [self._loaded.net]
        inner = getattr(getattr(self._model, "predictor", None), "model", None)
        for _ in range(4):
            if isinstance(inner, nn.Module) and type(inner) is type(self._loaded.net) and inner not in nets:
                nets.append(inner)
            inner = getattr(inner, "backend", None) or getattr(inner, "model", None)
        return nets

    def _after(self, module: nn.Module, args: Any, kwargs: Any) -> None:
        if self._hook is None or getattr(self._running, "now", False):
            return  # the forwards of the explanation itself
        self._running.now = True
        try:
            for image in images_of((args, kwargs)):
                self._save(replace(self._loaded, net=module), image)
        except Exception as error:
            self.saved.errors.append(error)
            log.warning("no heatmap was saved: %s: %s", type(error).__name__, error)
        finally:
            self._running.now = False

    def _save(self, loaded: Loaded, image: Tensor) -> None:
        with torch.inference_mode(False), torch.autocast(image.device.type, enabled=False):
            image = image.detach().clone()
            picture = finder(self._model, self._loaded, self._sources)(image, self._seen)
            self._seen += 1
            folder, picture = self._place(picture, image)
            explained = explain_picture(loaded, picture, self._request)
            save_explanation(explained, folder, picture.name, self._request.metadata())
            self.saved.paths.append(folder)
            log.info("heatmap saved in %s", folder)
            if self._feature_maps:
                inner = folder / "feature_maps"
                self.saved.feature_map_paths.append(write_feature_maps(loaded, image, self._feature_maps, 16, inner))

    def _place(self, picture: Picture | None, image: Tensor) -> tuple[Path, Picture]:
        """A new folder by the picture's name, or by number where there is none."""
        if picture is not None:
            return new_folder(self._folder / picture.name), picture
        while True:
            self._number += 1
            folder = self._folder / f"{self._number:06d}"
            try:
                folder.mkdir(parents=True)
            except FileExistsError:
                continue
            return folder, replace(read(image, self._loaded.prepare), name=folder.name)


@understands(IN_AUTOSAVE)
@contextmanager
def autosave(
    model: Any,
    method: MethodName | Sequence[MethodName] = "eigencam",
    layer: LayerChoice | None = None,
    folder: str | os.PathLike[str] = "runs/autosave",
    **settings: Any,
) -> Iterator[Saved]:
    """Inside the block every forward of ``model`` saves a heatmap; see :class:`AutoSave`.

    >>> from cam_engine import autosave
    >>> with autosave(model, method="gradcam", folder="saved") as saved:
    ...     outputs = model(images[:2])
    >>> saved.paths
    [PosixPath('saved/000001'), PosixPath('saved/000002')]
    """
    saving = AutoSave(model, method, layer, folder, **settings)
    try:
        yield saving.saved
    finally:
        saving.disable()


def _request(method: MethodName | Sequence[MethodName], layer: LayerChoice | None, settings: dict[str, Any]) -> Request:
    unknown = settings.keys() - set(SETTINGS)
    if unknown:
        raise TypeError(f"autosave takes {', '.join(SETTINGS)} beside its own arguments, not {', '.join(unknown)}.")
    return Request.of(method, layer, **settings)
