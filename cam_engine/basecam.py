"""Methods written as classes: ``get_cam_weights`` over numpy arrays, as in grad-cam and LibreYOLO."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from cam_engine.cam import CAM
from cam_engine.grids import Reshape
from cam_engine.methods.registry import Method, register
from cam_engine.targets.resolve import TargetSpec


class BaseCAM:
    """Derive from it, write :meth:`get_cam_weights`, and call the object: ``MyCAM(model, [model.layer4])(images)``.

    The forward, the gradients, ReLU, scaling and upsampling are those of :class:`cam_engine.CAM`, which leaves no trace on
    the model; so ``with MyCAM(model, layer) as cam:`` works too, and has nothing to clean up. ``explain(method=MyCAM)`` takes
    the class itself, and :func:`register_class` makes it a method by name. Ready classes are in
    :mod:`cam_engine.methods_as_classes`.

    Args:
        model: Any module.
        target_layers: A module of it or a name, or a list of them; several layers' maps are averaged.
        reshape_transform: Turns a layer's output into (B, C, h, w), where its layout is not recognised.
        uses_gradients: False for a method that takes activations alone; ``grads`` is then None.

    >>> import torch
    >>> class Plain(BaseCAM):
    ...     def get_cam_weights(self, input_tensor, target_layer, targets, activations, grads):
    ...         return grads.mean(axis=(2, 3))
    >>> net = torch.nn.Sequential(
    ...     torch.nn.Conv2d(3, 4, 3), torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.Linear(144, 2)
    ... )
    >>> Plain(net, [net[1]])(torch.rand(5, 3, 8, 8), targets=[0, 1, 0, 1, 0]).shape
    (5, 8, 8)
    """

    def __init__(
        self,
        model: nn.Module,
        target_layers: nn.Module | str | Sequence[nn.Module | str],
        reshape_transform: Reshape | None = None,
        uses_gradients: bool = True,
    ) -> None:
        self.model = model
        one = isinstance(target_layers, (nn.Module, str))
        self.target_layers: list[nn.Module | str] = [target_layers] if one else list(target_layers)  # type: ignore
        self.reshape_transform = reshape_transform
        self.uses_gradients = uses_gradients

    def get_cam_weights(
        self,
        input_tensor: Tensor,
        target_layer: nn.Module,
        targets: Any,
        activations: NDArray[np.floating],
        grads: NDArray[np.floating] | None,
    ) -> NDArray[np.floating]:
        """Weights of the channels (B, C), or weighted activations' weights cell by cell (B, C, h, w).

        Args:
            input_tensor: (B, C, H, W), the images.
            target_layer: The layer.
            targets: What the object was called with; None through :class:`cam_engine.CAM`.
            activations: (B, C, h, w) of the layer.
            grads: (B, C, h, w), of the explained score; None if ``uses_gradients`` is False.
        """
        raise NotImplementedError(f"{type(self).__name__} has no get_cam_weights")

    def __call__(
        self, input_tensor: Tensor, targets: Any = None, aug_smooth: bool = False, eigen_smooth: bool = False
    ) -> NDArray[np.float32]:
        """Explain a batch: heatmaps (B, H, W) in [0, 1].

        Args:
            input_tensor: (B, C, H, W), normalised.
            targets: As for :class:`cam_engine.CAM`, or a list with a callable ``(output of one image) -> score`` for each.
            aug_smooth, eigen_smooth: As for :class:`cam_engine.CAM`; in grad-cam's order.
        """
        method = self.as_method(targets)
        cam = CAM(
            self.model,
            method,
            self.target_layers,
            reshape=self.reshape_transform,
            eigen_smooth=eigen_smooth,
            aug_smooth=aug_smooth,
        )
        return np.asarray(cam(input_tensor, _per_image(targets))[method.name].float().cpu().numpy())

    def forward(self, input_tensor: Tensor, targets: Any = None, eigen_smooth: bool = False) -> NDArray[np.float32]:
        """The same, with grad-cam's order of arguments."""
        return self(input_tensor, targets, False, eigen_smooth)

    def as_method(self, targets: Any = None) -> Method:
        """This object's :meth:`get_cam_weights` as a method for :class:`cam_engine.CAM`, named as its class."""
        return _method(type(self).__name__, self, targets)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: Any) -> None:
        """No hook is left to remove."""


def as_method(cam: type[BaseCAM]) -> Method:
    """A class as a method for :class:`cam_engine.CAM`, named as the class.

    One object of it is made, with an empty module for its model, and asked for weights; so it must not need its own model
    or layers in :meth:`BaseCAM.get_cam_weights`.

    Raises:
        TypeError: Not a class with ``get_cam_weights``.
    """
    if not isinstance(cam, type) or not callable(getattr(cam, "get_cam_weights", None)):
        raise TypeError(f"a class with get_cam_weights, derived from cam_engine.BaseCAM, is expected, not {cam!r}.")
    made = cam(nn.Identity(), [])
    return made.as_method() if isinstance(made, BaseCAM) else _method(cam.__name__, made)


def register_class(name: str, cam: type[BaseCAM]) -> None:
    """Register a :class:`BaseCAM` class as a method: ``CAM(model, methods=name)`` and ``explain(..., method=name)`` use it.

    Raises:
        TypeError: Not a class with ``get_cam_weights``; see :func:`as_method`.

    >>> from cam_engine import BaseCAM, CAM, register_class
    >>> class Loudest(BaseCAM):
    ...     def get_cam_weights(self, input_tensor, target_layer, targets, activations, grads):
    ...         return activations == activations.max(1, keepdims=True)
    >>> register_class("loudest", Loudest)
    >>> CAM(model, "loudest")(images)["loudest"].shape
    torch.Size([6, 32, 32])
    """
    method = as_method(cam)
    register(name, needs=method.needs)(method.function)


def _method(name: str, cam: BaseCAM, targets: Any = None) -> Method:
    def function(activations: Tensor, images: Tensor, layer: nn.Module, gradients: Tensor | None = None) -> Tensor:
        grads = None if gradients is None else gradients.cpu().numpy()
        weights = np.asarray(cam.get_cam_weights(images, layer, targets, activations.cpu().numpy(), grads))
        weighting = torch.from_numpy(np.ascontiguousarray(weights)).to(activations)
        if weighting.shape not in (activations.shape, activations.shape[:2]):
            raise ValueError(
                f"{type(cam).__name__}.get_cam_weights returned shape {tuple(weighting.shape)} for activations "
                f"{tuple(activations.shape)}; (B, C) or (B, C, h, w) is expected."
            )
        return weighting * activations if weighting.shape == activations.shape else weighting

    needs = {"images", "layer", "gradients"} if cam.uses_gradients else {"images", "layer"}
    return Method(name, function, frozenset(needs), frozenset())


def _per_image(targets: Any) -> TargetSpec:
    """grad-cam's list of one callable per image as one target for the batch."""
    if not isinstance(targets, (list, tuple)) or not targets or not all(callable(t) for t in targets):
        spec: TargetSpec = targets
        return spec
    each: Sequence[Callable[[Any], Tensor]] = targets

    def score(outputs: Any) -> Tensor:
        if len(outputs) != len(each):
            raise ValueError(f"{len(each)} targets were given for {len(outputs)} images.")
        return torch.stack([torch.as_tensor(t(o)).reshape(()) for t, o in zip(each, outputs, strict=True)])

    return score
