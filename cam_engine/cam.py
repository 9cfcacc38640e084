"""Plan → capture → methods → heatmaps."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from cam_engine import _tree
from cam_engine.capture import Captured, Forward, Record, Target, capture, gradients
from cam_engine.extras import Extras, Score, finer_score, hessian_vectors
from cam_engine.grids import GridError, Reshape
from cam_engine.guard import random_streams
from cam_engine.layers import LayerSpec, resolve_layers, targets_of, views_of
from cam_engine.methods.registry import Method, get_method
from cam_engine.methods.weighting import collapse
from cam_engine.targets.classes import ClassTarget
from cam_engine.targets.resolve import TargetSpec, check_scores, fixed_target, mirrored_target, resolve_target
from cam_engine.validity import MASS_FLOOR

if TYPE_CHECKING:
    import PIL.Image

Aggregate = Literal["mean", "max"]


@dataclass(frozen=True, eq=False)
class CAMResult:
    """Heatmaps of one batch.

    ``raw[method, layer]``: (B, h, w) float32 (float64 from a float64 model) on the layer's own grid, after ReLU, not
    rescaled, on the model's device.
    ``outputs``: what the model returned, detached; None if the forward was stopped at the last layer.
    ``scores``: (B,) the score that was explained; None then too.
    ``size``: (H, W) of the images.
    ``aggregate``: how several layers become one heatmap.
    ``images``: (B, C, H, W) what was explained.

    In a notebook the result shows itself; :meth:`plot` returns the same picture.
    """

    raw: dict[tuple[str, str], Tensor]
    outputs: Any
    scores: Tensor | None
    size: tuple[int, int]
    aggregate: Aggregate = "mean"
    images: Tensor | None = field(default=None, repr=False)
    _heatmaps: dict[str, Tensor] = field(default_factory=dict, repr=False)

    @property
    def methods(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(method for method, _ in self.raw))

    @property
    def layers(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(layer for _, layer in self.raw))

    @property
    def valid(self) -> dict[str, Tensor]:
        """For each method, (B,) bool: is there a map, on any layer, that is finite and has mass?"""
        return {m: torch.stack([is_valid(self.raw[m, layer]) for layer in self.layers]).any(0) for m in self.methods}

    def __getitem__(self, method: str) -> Tensor:
        """The heatmap for pictures: (B, H, W) float32 in [0, 1], upsampled to the images.

        Each layer's map is min–max scaled, upsampled (bilinear, half-pixel centres) and averaged over layers
        (detectors: maximum), then scaled again. An invalid map is zero everywhere.
        """
        method = get_method(method).name
        if method not in self.methods:
            raise KeyError(f"{method!r} was not computed; this result holds {', '.join(self.methods)}")
        if method not in self._heatmaps:
            self._heatmaps[method] = self._heatmap(method)
        return self._heatmaps[method]

    def plot(self, images: Tensor | None = None, *, most: int = 16) -> PIL.Image.Image:
        """A picture: one row for each image (``most`` at most), one column for each method.

        ``images`` (B, C, H, W), in place of those that were explained, are shown as they are if they lie in [0, 1], else
        scaled to their range.
        """
        from PIL import Image

        from cam_engine.pictures import to_pictures
        from cam_engine.render import Tile, film_strip

        images = self.images if images is None else images
        if images is None:
            raise ValueError("this result holds no images; pass plot(images).")
        pictures = to_pictures(images[:most])
        maps = [self[method][:most].float().cpu().numpy() for method in self.methods]
        rows = [[Tile(picture, of[i]) for of in maps] for i, picture in enumerate(pictures)]
        size = min(max(pictures.shape[1:3]), 224)
        labels = [str(i) for i in range(len(rows))]
        sheet = film_strip(rows, row_labels=labels, column_labels=self.methods, tile_size=max(size, 112))
        return Image.fromarray(sheet)

    def _repr_png_(self) -> bytes:
        """For notebooks."""
        from cam_engine.render import encode_png

        return encode_png(np.asarray(self.plot()))

    def _heatmap(self, method: str) -> Tensor:
        layers = []
        for layer in self.layers:
            scaled = minmax(self.raw[method, layer])
            layers.append(
                F.interpolate(scaled[:, None], size=self.size, mode="bilinear", align_corners=False).squeeze(1)
            )
        stacked = torch.stack(layers)
        return minmax(stacked.mean(0) if self.aggregate == "mean" else stacked.amax(0))


class CAM:
    """Class activation maps of a model: any number of methods and layers from one forward and one gradient call.

    Args:
        model: Any module that takes images (B, C, H, W). It is run in eval mode and left exactly as it was.
        methods: Names from :func:`cam_engine.available_methods`.
        layers: ``"auto"`` (the last layer with a spatial grid), a dotted name, a glob, a module, or a list of those.
        component: For the eigen methods, which principal component, counted from 0.
        center: For the eigen methods, whether channels are centred over the cells before the decomposition.
        eigen_smooth: Take the first principal component of the weighted activations in place of their sum; methods that
            return a map of their own are left as they are.
        aug_smooth: Average the maps of six variants of each image, {as it is, mirrored} × {0.9, 1, 1.1}, mirrored back.
        reshape: Callable that turns a layer's output into (B, C, h, w), for layouts that are not recognised.
        forward: ``(model, images) -> outputs`` for a model that is not called with the images alone.
        output: Key or index of the score tensor in what the model returns (a dictionary, tuple or dataclass), or a
            callable.
        aggregate: ``"mean"`` or ``"max"`` over layers in ``result[method]``.
        batch_size: Images in one forward of the methods that score many variants (Score-CAM, Ablation-CAM);
            None for a number that suits the device.
        seed: Of the methods that draw random numbers; equal calls give equal maps.
        progress: Show a bar while variants are scored, where that takes over two seconds and stderr is a terminal.

    >>> import torch
    >>> from cam_engine import CAM
    >>> net = torch.nn.Sequential(
    ...     torch.nn.Conv2d(3, 4, 3), torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.Linear(144, 2)
    ... )
    >>> result = CAM(net, methods="gradcam")(torch.rand(5, 3, 8, 8), targets=1)
    >>> result["gradcam"].shape, result.raw["gradcam", "1"].shape
    (torch.Size([5, 8, 8]), torch.Size([5, 6, 6]))
    """

    def __init__(
        self,
        model: nn.Module,
        methods: str | Sequence[str] = ("eigencam", "gradcam"),
        layers: LayerSpec = "auto",
        *,
        component: int = 0,
        center: bool = True,
        eigen_smooth: bool = False,
        aug_smooth: bool = False,
        reshape: Reshape | None = None,
        forward: Forward | None = None,
        output: Any = None,
        aggregate: Aggregate = "mean",
        batch_size: int | None = None,
        seed: int = 0,
        progress: bool = True,
    ) -> None:
        if not isinstance(model, nn.Module):
            raise TypeError(f"model= must be a torch.nn.Module, not {type(model).__name__}.")
        names = [methods] if isinstance(methods, str) else list(methods)
        if not names:
            raise ValueError('methods= is empty; pass at least one name, such as "gradcam".')
        if aggregate not in ("mean", "max"):
            raise ValueError(f'aggregate= takes "mean" or "max", not {aggregate!r}.')
        if isinstance(component, bool) or not hasattr(component, "__index__") or component < 0:
            raise ValueError(f"component={component!r} must be a whole number, counted from 0.")
        if batch_size is not None and batch_size < 1:
            raise ValueError(f"batch_size={batch_size} must be at least 1.")
        self.model = model
        self.methods: dict[str, Method] = {method.name: method for method in map(get_method, names)}
        self.layers = layers
        self.options = {"component": component, "center": center}
        self.eigen_smooth, self.aug_smooth = eigen_smooth, aug_smooth
        self.reshape = reshape
        self.forward = forward
        self.output = output
        self.aggregate: Aggregate = aggregate
        self.batch_size, self.seed, self.progress = batch_size, seed, progress
        self._needs = frozenset().union(*(method.needs for method in self.methods.values()))
        self._resolved: dict[str, nn.Module] | None = None
        self._calls: dict[str, int] | None = None
        self._record: Record = "from_layer"

    def resolve(self, images: Tensor) -> dict[str, nn.Module]:
        """Layers that ``layers=`` stands for, by name; settled at the first call."""
        if self._resolved is None:
            self._resolved = resolve_layers(self.model, self.layers, images, forward=self.forward, pick=self.scores_of)
        return self._resolved

    def __call__(self, images: Tensor, targets: TargetSpec = None, *, outputs: bool = False) -> CAMResult:
        """Explain a batch.

        Args:
            images: (B, C, H, W) float, already normalised; moved to the model's device and precision if need be.
            targets: None (the predicted class), an int, B ints (of a segmenter, each inside its predicted mask), or a
                callable ``(outputs) -> Tensor (B,)``.
            outputs: Run the whole forward even if no method needs it, so that ``result.outputs`` and ``result.scores``
                are there.

        Raises:
            TypeError, ValueError: Images, targets or outputs of the wrong kind or shape.
            UnknownNameError: (a KeyError) no such layer.
            GridError: (a ValueError) a layer's output has no spatial grid.
            NoGradientError: (a RuntimeError) the score does not depend on any of the layers.
        """
        images = self._prepare(images)
        score = resolve_target(targets)
        if isinstance(score, ClassTarget):
            score.check(len(images))
        with random_streams(), torch.inference_mode(False):
            if self.aug_smooth:
                return self._smoothed(images, score)
            return self._explain(images, score, outputs)

    def scores_of(self, outputs: Any) -> Any:
        """What ``output=`` picks out of what the model returned; everything without it."""
        if self.output is None:
            return outputs
        if callable(self.output):
            return self.output(outputs)
        try:
            attribute = not isinstance(outputs, dict) and hasattr(outputs, str(self.output))
            return getattr(outputs, self.output) if attribute else outputs[self.output]
        except (KeyError, IndexError, TypeError) as error:
            raise ValueError(
                f"output={self.output!r} is not in what the model returned ({type(outputs).__name__}"
                f"{' with keys ' + str(list(outputs)) if isinstance(outputs, dict) else ''})."
            ) from error

    def _explain(self, images: Tensor, score: Score, outputs: bool) -> CAMResult:
        size = (images.shape[-2], images.shape[-1])
        chosen = self.resolve(images)
        targets = targets_of(self.model, chosen, images, self.reshape)
        if self._needs - {"generator", "images", "layer"}:
            captured, scores, grads, score = self._recorded(images, targets, score)
        elif outputs:
            captured = capture(self.model, images, targets, record="nothing", forward=self.forward)
            scores, grads = self._score(captured.outputs, score, len(images)), {}
        else:
            captured, scores, grads = self._stopped(images, targets), None, {}
        views = views_of(self.model, captured.activations, images, self.reshape)
        extras = Extras(
            model=self.model,
            images=images,
            targets=targets,
            captured=captured,
            views=views,
            score=lambda outputs: score(self.scores_of(outputs)),
            scores=torch.empty(0) if scores is None else scores.detach(),
            picked=self.scores_of,
            class_target=score if isinstance(score, ClassTarget) else None,
            forward=self.forward,
            batch_size=self.batch_size,
            seed=self.seed,
            progress=self.progress,
        )
        raw = self._maps(extras, grads)
        returned = None if captured.outputs is None else _tree.map_tensors(Tensor.detach, captured.outputs)
        return CAMResult(raw, returned, None if scores is None else scores.detach(), size, self.aggregate, images)

    def _recorded(
        self, images: Tensor, targets: list[Target], score: Score
    ) -> tuple[Captured, Tensor, dict[str, dict[str, Tensor]], Score]:
        """Forward and gradients: for each of the needs that come from the graph, a tensor for each layer."""
        wanted = self._needs & {"gradients", "hessian_vector", "finer_gradients"}
        while True:
            record: Record = self._record if wanted else "nothing"
            # Fused attention has no second derivative.
            with sdpa_kernel(SDPBackend.MATH) if "hessian_vector" in wanted else nullcontext():
                captured = capture(self.model, images, targets, record=record, forward=self.forward)
            if not captured.interrupted or self._record == "from_start":
                break
            self._record = "from_start"  # a no_grad block around a layer; so it will be at the next call
        with torch.enable_grad():
            picked = self.scores_of(captured.outputs)
            score = fixed_target(score, picked)
            scores = check_scores(score(picked), len(images))
            found: dict[str, dict[str, Tensor]] = {}
            if "finer_gradients" in wanted:
                finer = finer_score(picked, score if isinstance(score, ClassTarget) else None)
                found["finer_gradients"] = gradients(finer, captured, retain_graph=True)
            if wanted - {"finer_gradients"}:
                found["gradients"] = gradients(scores, captured, create_graph="hessian_vector" in wanted)
            if "hessian_vector" in wanted:
                found["hessian_vector"] = hessian_vectors(found["gradients"], captured)
        return captured, scores, found, score

    def _stopped(self, images: Tensor, targets: list[Target]) -> Captured:
        # Whether a layer runs again later is known only after one whole forward, so the first call runs to the end.
        captured = capture(self.model, images, targets, record="nothing", forward=self.forward, stop_after=self._calls)
        self._calls = self._calls or captured.calls
        return replace(captured, outputs=None)

    def _score(self, outputs: Any, score: Score, batch: int) -> Tensor:
        return check_scores(score(self.scores_of(outputs)), batch)

    def _maps(self, extras: Extras, grads: dict[str, dict[str, Tensor]]) -> dict[tuple[str, str], Tensor]:
        raw: dict[tuple[str, str], Tensor] = {}
        activations = extras.captured.activations
        device = next(iter(activations.values())).device.type
        for layer, activation in activations.items():
            view = extras.views[layer]
            shared: dict[str, Any] = dict(self.options) | {"activations": view(activation)}
            shared |= {"images": extras.images, "scores": extras.scores.to(shared["activations"].dtype)}
            shared |= {name: view(of_layer[layer]) for name, of_layer in grads.items()}
            for method in self.methods.values():
                arguments = {name: shared[name] for name in {"activations"} | method.options}
                arguments |= {n: shared[n] if n in shared else extras.get(n, layer) for n in method.needs}
                who = f"method {method.name!r} at layer {layer!r}"
                with torch.no_grad(), torch.autocast(device, enabled=False):
                    try:
                        returned = method.function(**arguments)
                    except GridError:
                        raise
                    except ValueError as error:
                        raise ValueError(f"{who}: {error}") from error
                    whole = collapse(returned, shared["activations"], eigen_smooth=self.eigen_smooth, method=who)
                    raw[method.name, layer] = whole.relu()
        return {(m, layer): raw[m, layer] for m in self.methods for layer in activations}

    def _smoothed(self, images: Tensor, score: Score) -> CAMResult:
        """Maps averaged over flips and scales. The classes explained are those of the image as it is."""
        plain = self._explain(images, score, True)
        score = fixed_target(score, self.scores_of(plain.outputs))
        parts: list[tuple[CAMResult, bool]] = []
        for flip in (False, True):
            for factor in (0.9, 1.0, 1.1):
                variant, of = (images.flip(3), mirrored_target(score)) if flip else (images, score)
                known = not flip and factor == 1.0
                parts.append((plain if known else self._explain(variant * factor, of, False), flip))

        def average(of: Callable[[CAMResult], Tensor]) -> Tensor:
            return torch.stack([of(part).flip(2) if flip else of(part) for part, flip in parts]).mean(0)

        raw = {key: average(lambda part, key=key: part.raw[key]) for key in plain.raw}  # type: ignore[misc]
        pictures = {m: minmax(average(lambda part, m=m: part[m])) for m in plain.methods}  # type: ignore[misc]
        return replace(plain, raw=raw, _heatmaps=pictures)

    def _prepare(self, images: Tensor) -> Tensor:
        if not isinstance(images, Tensor):
            raise TypeError(f"images must be a Tensor (B, C, H, W), not {type(images).__name__}.")
        if images.ndim != 4 or images.shape[0] == 0:
            raise ValueError(f"images must have shape (B, C, H, W) with B of at least 1, not {tuple(images.shape)}.")
        if not images.is_floating_point():
            raise TypeError(
                f"images must be floating point and normalised as the model expects, not {images.dtype}; "
                "for uint8 pictures: images.float() / 255, then the model's mean and std."
            )
        parameter = next((p for p in self.model.parameters() if p.is_floating_point()), None)
        if parameter is None:
            return images
        autocast = torch.is_autocast_enabled(parameter.device.type)
        return images.to(parameter.device, images.dtype if autocast else parameter.dtype)


def minmax(maps: Tensor) -> Tensor:
    """Scale each of (B, h, w) maps to [0, 1], whatever the size of its values. Constant and invalid maps become zero."""
    valid = is_valid(maps)[:, None, None]
    maps = torch.where(valid, maps, 0.0)
    low = maps.amin((1, 2), keepdim=True)
    span = maps.amax((1, 2), keepdim=True) - low
    return torch.where(span > 0, (maps - low) / torch.where(span > 0, span, 1.0), 0.0)


def is_valid(maps: Tensor) -> Tensor:
    """(B,) bool: finite everywhere, and a sum after ReLU above 1e-12."""
    total = maps.relu().sum((1, 2), dtype=torch.float64 if maps.device.type != "mps" else torch.float32)
    return torch.isfinite(maps).flatten(1).all(1) & (total > MASS_FLOOR)
