"""Plan → capture → methods → heatmaps."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from cam_engine import _tree
from cam_engine.capture import Captured, Forward, Recording, capture
from cam_engine.extras import Extras
from cam_engine.grids import GridError, Reshape
from cam_engine.guard import random_streams
from cam_engine.layers import LayerSpec, resolve_layers, taps_of, views_of
from cam_engine.methods.needs import NEEDS, Plan
from cam_engine.methods.registry import Method, get_method
from cam_engine.methods.weighting import collapse
from cam_engine.rescoring import Rescorer, Score
from cam_engine.result import Aggregate, CAMResult, minmax
from cam_engine.sharding import is_spread, whole
from cam_engine.targets.classes import ClassTarget
from cam_engine.targets.resolve import (
    TargetSpec,
    check_scores,
    evidence_target,
    fixed_target,
    mirrored_target,
    resolve_target,
)
from cam_engine.targets.scores import pick_scores


class CAM:
    """Class activation maps of a model: any number of methods and layers from one forward and one gradient call.

    Args:
        model: Any module that takes images (B, C, H, W). It is run in eval mode and left exactly as it was.
        methods: Names from :func:`cam_engine.available_methods`, or :class:`cam_engine.methods.Method` objects.
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
        methods: str | Method | Sequence[str | Method] = ("eigencam", "gradcam"),
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
        chosen = [methods] if isinstance(methods, (str, Method)) else list(methods)
        if not chosen:
            raise ValueError('methods= is empty; pass at least one name, such as "gradcam".')
        if aggregate not in ("mean", "max"):
            raise ValueError(f'aggregate= takes "mean" or "max", not {aggregate!r}.')
        if isinstance(component, bool) or not hasattr(component, "__index__") or component < 0:
            raise ValueError(f"component={component!r} must be a whole number, counted from 0.")
        if batch_size is not None and batch_size < 1:
            raise ValueError(f"batch_size={batch_size} must be at least 1.")
        self.model = model
        resolved = [method if isinstance(method, Method) else get_method(method) for method in chosen]
        self.methods: dict[str, Method] = {method.name: method for method in resolved}
        self.layers = layers
        self.options = {"component": component, "center": center}
        self.eigen_smooth, self.aug_smooth = eigen_smooth, aug_smooth
        self.reshape = reshape
        self.forward = forward
        self.output = output
        self.aggregate: Aggregate = aggregate
        self.batch_size, self.seed, self.progress = batch_size, seed, progress
        self.plan = Plan.of(name for method in self.methods.values() for name in method.needs)
        self._resolved: dict[str, nn.Module] | None = None
        self._calls: dict[str, int] | None = None
        self._recording: Recording = "from_layer"

    def resolve(self, images: Tensor) -> dict[str, nn.Module]:
        """Layers that ``layers=`` stands for, by name; settled at the first call."""
        if self._resolved is None:
            self._resolved = resolve_layers(self.model, self.layers, images, forward=self.forward, pick=self.scores_of)
        return self._resolved

    def __call__(
        self, images: Tensor, targets: TargetSpec = None, *, outputs: bool = False, forward: Forward | None = None
    ) -> CAMResult:
        """Explain a batch.

        Args:
            images: (B, C, H, W) float, already normalised; moved to the model's device and precision if need be.
            targets: None (the predicted class), an int, B ints (of a segmenter, each inside its predicted mask), or a
                callable ``(outputs) -> Tensor (B,)``.
            outputs: Run the whole forward even if no method needs it, so that ``result.outputs`` and ``result.scores``
                are there.
            forward: ``(model, images) -> outputs``, in place of the CAM's own: one that knows what else belongs to these images.
                Methods that score variants call it with K of each image, one image's next to each other, or with the first few.

        Raises:
            TypeError, ValueError: Images, targets or outputs of the wrong kind or shape.
            UnknownNameError: (a KeyError) no such layer.
            GridError: (a ValueError) a layer's output has no spatial grid.
            NoGradientError: (a RuntimeError) the score does not depend on any of the layers.
        """
        images = self.prepare(images)
        score = resolve_target(targets)
        if isinstance(score, ClassTarget):
            score.check(len(images))
        with random_streams(), torch.inference_mode(False):
            if self.aug_smooth:
                return self._smoothed(images, score, forward)
            return self._explain(images, score, outputs, forward)

    def prepare(self, images: Tensor) -> Tensor:
        """Images as the model takes them: checked, and moved to its device and precision.

        Raises:
            TypeError, ValueError: Images of the wrong kind or shape.
        """
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

    def scores_of(self, outputs: Any) -> Any:
        """What ``output=`` picks out of what the model returned, everything without it; whole, where processes hold parts of it."""
        picked = pick_scores(outputs, self.output)
        spread = any(is_spread(tensor) for _, tensor in _tree.tensors(picked))
        return _tree.map_tensors(whole, picked) if spread else picked

    def capture(
        self, images: Tensor, *, outputs: bool = False, record: bool = False, forward: Forward | None = None
    ) -> Captured:
        """One forward of prepared images, and no more of it than the methods need; then the outputs are None.

        Args:
            images: (B, C, H, W), from :meth:`prepare`.
            outputs: Run it to its end, even if no method needs that.
            record: Record it for gradients, even if no method needs them.
            forward: In place of the CAM's own.
        """
        forward = self.forward if forward is None else forward
        taps = taps_of(self.model, self.resolve(images), images, self.reshape)
        if record or self.plan.recorded:
            captured = capture(
                self.model,
                images,
                taps,
                record=self._recording,
                second_order=self.plan.second_order,
                forward=forward,
            )
            self._recording = captured.recording  # so it will be at the next call
            return captured
        if outputs or self.plan.score:
            return capture(self.model, images, taps, record="nothing", forward=forward)
        # Whether a layer runs again later is known only after one whole forward, so the first call runs to the end.
        captured = capture(self.model, images, taps, record="nothing", forward=forward, stop_after=self._calls)
        self._calls = self._calls or captured.calls
        return replace(captured, outputs=None)

    def extras(
        self, images: Tensor, captured: Captured, score: Score | None = None, *, keep_graph: bool = False
    ) -> Extras:
        """What methods may ask for about a captured forward and a score of it, ``(outputs) -> (B,)``.

        ``keep_graph``: other scores of the same forward will be explained too.
        """
        picked, scores = None, torch.empty(0)
        if score is not None:
            with torch.enable_grad():
                picked = self.scores_of(captured.outputs)
                score = fixed_target(score, picked)
                scores = check_scores(score(picked), len(images))
        return Extras(
            captured=captured,
            views=views_of(self.model, captured.activations, images, self.reshape),
            scores=scores,
            picked=picked,
            class_target=score if isinstance(score, ClassTarget) else None,
            rescorer=Rescorer(
                model=self.model,
                images=images,
                score=_no_score if score is None else partial(self._score, score),
                evidence=_no_score if score is None else partial(self._score, evidence_target(score)),
                forward=captured.forward,
                batch_size=self.batch_size,
                progress=self.progress,
            ),
            seed=self.seed,
            keep_graph=keep_graph or self.plan.keep_graph,
            second_order=self.plan.second_order,
        )

    def maps(self, extras: Extras, methods: Iterable[Method]) -> dict[tuple[str, str], Tensor]:
        """(B, h, w) for each method and layer, after ReLU: the method, called with what it asks for."""
        methods = list(methods)
        needs = [name for name in NEEDS if any(name in method.needs for method in methods)]
        raw: dict[tuple[str, str], Tensor] = {}
        for layer, activation in extras.captured.activations.items():
            given: dict[str, Any] = {"activations": extras.activations(layer), **self.options}
            given |= {name: NEEDS[name].take(extras, layer) for name in needs}
            for method in methods:
                given |= {name: NEEDS[name].take(extras, layer) for name in method.needs if NEEDS[name].fresh}
                arguments = {name: given[name] for name in {"activations"} | method.needs | method.options}
                with torch.no_grad(), torch.autocast(activation.device.type, enabled=False):
                    raw[method.name, layer] = self._map(method, layer, arguments)
        return {(method.name, layer): raw[method.name, layer] for method in methods for layer in extras.views}

    def _score(self, score: Score, outputs: Any) -> Tensor:
        return score(self.scores_of(outputs))

    def _map(self, method: Method, layer: str, arguments: dict[str, Any]) -> Tensor:
        who = f"method {method.name!r} at layer {layer!r}"
        try:
            returned = method.function(**arguments)
        except GridError:
            raise
        except ValueError as error:
            raise ValueError(f"{who}: {error}") from error
        return collapse(returned, arguments["activations"], eigen_smooth=self.eigen_smooth, method=who).relu()

    def _explain(self, images: Tensor, score: Score, outputs: bool, forward: Forward | None) -> CAMResult:
        captured = self.capture(images, outputs=outputs, forward=forward)
        extras = self.extras(images, captured, None if captured.outputs is None else score)
        raw = self.maps(extras, self.methods.values())
        size = (images.shape[-2], images.shape[-1])
        if captured.outputs is None:
            return CAMResult(raw, None, None, size, self.aggregate, images)
        returned = _tree.map_tensors(Tensor.detach, captured.outputs)
        return CAMResult(raw, returned, extras.scores.detach(), size, self.aggregate, images)

    def _smoothed(self, images: Tensor, score: Score, forward: Forward | None) -> CAMResult:
        """Maps averaged over flips and scales. The classes explained are those of the image as it is."""
        plain = self._explain(images, score, True, forward)
        score = fixed_target(score, self.scores_of(plain.outputs))
        parts: list[tuple[CAMResult, bool]] = []
        for flip in (False, True):
            for factor in (0.9, 1.0, 1.1):
                variant, of = (images.flip(3), mirrored_target(score)) if flip else (images, score)
                known = not flip and factor == 1.0
                parts.append((plain if known else self._explain(variant * factor, of, False, forward), flip))

        def average(of: Callable[[CAMResult], Tensor]) -> Tensor:
            return torch.stack([of(part).flip(2) if flip else of(part) for part, flip in parts]).mean(0)

        raw = {key: average(lambda part, key=key: part.raw[key]) for key in plain.raw}  # type: ignore[misc]
        pictures = {m: minmax(average(lambda part, m=m: part[m])) for m in plain.methods}  # type: ignore[misc]
        return replace(plain, raw=raw, _heatmaps=pictures)


def _no_score(outputs: Any) -> Tensor:
    raise RuntimeError("no score is explained, so variants cannot be scored.")
