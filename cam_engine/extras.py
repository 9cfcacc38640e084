"""What some methods need beyond activations and gradients, each computed once for a batch and only if asked for.

The names are those of :data:`cam_engine.methods.registry.NEEDS`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Generator, Tensor, nn
from tqdm import tqdm

from cam_engine import _tree
from cam_engine.capture import Captured, Forward, Target, capture, gradients, replay, rescore
from cam_engine.grids import GridView
from cam_engine.targets.classes import ClassTarget
from cam_engine.targets.scores import class_scores

NOISE = 0.3  # standard deviation of SmoothGrad's noise, in the units of the normalised images
NOISY_REPEATS = 4
COMPARED_CLASSES = 3
BATCH_SIZE, CPU_BATCH_SIZE = 32, 16  # images in one forward of the methods that score many variants

Score = Callable[[Any], Tensor]
Variant = Callable[[Tensor], Tensor]


@dataclass
class Extras:
    """One explained batch, and everything that can be asked about it.

    ``score``: the target, fixed to the classes that were explained, ``(outputs) -> (B,)``; it sees ``output=``'s pick.
    ``views``: for each layer, what turns its raw output into (B, C, h, w). ``class_target``: the target where it is a class.
    """

    model: nn.Module
    images: Tensor
    targets: list[Target]
    captured: Captured
    views: Mapping[str, GridView]
    score: Score
    scores: Tensor
    picked: Callable[[Any], Any]
    class_target: ClassTarget | None
    forward: Forward | None
    batch_size: int | None
    seed: int
    progress: bool

    def __post_init__(self) -> None:
        convolves = any(isinstance(module, nn.Conv2d) for module in self.model.modules())
        device = self.images.device.type
        self._channels_last = device == "cpu" and convolves
        self._precision = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else None

    def get(self, name: str, layer: str) -> Any:
        """The extra of that name for one layer."""
        return getattr(self, name)(layer)

    def generator(self, layer: str) -> Generator:
        return torch.Generator().manual_seed(self.seed)

    def layer(self, layer: str) -> nn.Module:
        return next(target.module for target in self.targets if target.name == layer)

    def class_weights(self, layer: str) -> Tensor:
        activation = self.views[layer](self.captured.activations[layer])
        logits = None if self.class_target is None else class_scores(self.picked(self.captured.outputs))
        linear = []
        if logits is not None:
            sizes = (activation.shape[1], logits.shape[1])
            linear = [
                m for m in self.model.modules() if isinstance(m, nn.Linear) and (m.in_features, m.out_features) == sizes
            ]
        if self.class_target is None or logits is None or not linear:
            raise ValueError(
                f"the method 'cam' needs a class as its target and a model that ends in one linear layer with "
                f"{activation.shape[1]} inputs, the channels of layer {layer!r}, and an output for each class; 'gradcam' is the "
                "same where there is one, and works without."
            )
        weight = linear[-1].weight.detach().to(activation.dtype)
        if len(weight) == 1:
            return weight * self.class_target.sign(logits)[:, None]
        return weight[self.class_target.indices(logits)]

    def gradient_moments(self, layer: str) -> tuple[Tensor, Tensor, Tensor]:
        view = self.views[layer]
        return tuple(view(moment) for moment in self._moments[layer])  # type: ignore[return-value]

    def bias_terms(self, layer: str) -> list[Tensor]:
        return self._bias_terms

    def rescore_images(self, layer: str) -> Callable[[Variant, int], Tensor]:
        def run(variant: Variant, count: int) -> Tensor:
            def outputs(chunk: Tensor) -> Any:
                changed = variant(chunk).flatten(0, 1).to(self.images.dtype)
                return self._laid_out(lambda given: rescore(self.model, given, forward=self.forward), changed)

            return self._in_chunks(outputs, count, self._default_batch)

        return run

    def rescore_activations(self, layer: str) -> Callable[[Variant, int], Tensor]:
        target = next(t for t in self.targets if t.name == layer)
        view, raw = self.views[layer], self.captured.activations[layer].detach()

        def run(variant: Variant, count: int) -> Tensor:
            def outputs(chunk: Tensor) -> Any:
                changed = view.put_back(raw.repeat_interleave(len(chunk), 0), variant(chunk).flatten(0, 1))
                return self._replay(target, changed)

            # Each chunk costs a few images' way to the layer, so late and small ones come in greater numbers.
            room = 2 * self._default_batch * self.images[0].numel() // raw[0].numel()
            return self._in_chunks(outputs, count, max(room, self._default_batch))

        return run

    def _autocast(self) -> torch.autocast:
        """As it was around the whole call: a method itself runs without, but the model may not."""
        return torch.autocast(self.images.device.type, dtype=self._precision, enabled=self._precision is not None)

    @property
    def _default_batch(self) -> int:
        return CPU_BATCH_SIZE if self.images.device.type == "cpu" else BATCH_SIZE

    def _laid_out(self, run: Callable[[Tensor], Any], images: Tensor) -> Any:
        """``run`` on images with channels last, which makes convolutions over large maps faster on a CPU.

        A model that takes views of contiguous tensors fails on it, and gets them as they are from then on.
        """
        if self._channels_last:
            try:
                return run(images.contiguous(memory_format=torch.channels_last))
            except RuntimeError:
                self._channels_last = False
        return run(images)

    def _replay(self, target: Target, activation: Tensor) -> Any:
        """Outputs for a replaced activation. The layers before it see a few images only, where the model allows that.

        A model in which something passes by the layer would mix the two batches; the few images are of a number that fits
        neither one image nor the batch, so that this is an error and not a broadcast.
        """
        if not self._replay_whole:
            few = next(n for n in (2, 3) if n != len(activation))
            try:
                # An in-place layer may change what it is given before something further down fails.
                given = activation.clone()
                outputs = replay(
                    self.model, _cycled(self.images, few), target, self.captured, given, forward=self.forward
                )
                if all(len(t) == len(activation) for _, t in _tree.tensors(outputs) if t.ndim):
                    return outputs
            except (RuntimeError, ValueError, IndexError):
                pass
            self._replay_whole = True
        images = self.images.repeat_interleave(len(activation) // len(self.images), 0)
        return replay(self.model, images, target, self.captured, activation, forward=self.forward)

    _replay_whole = False

    def _in_chunks(self, outputs: Callable[[Tensor], Any], count: int, default: int) -> Tensor:
        """(B, count) scores of variants; ``outputs`` takes indices (K,) and returns what the model says of B·K images."""
        batch = len(self.images)
        step = max(1, (self.batch_size or default) // batch)
        chunks = torch.arange(count, device=self.images.device).split(step)
        scored = []
        for chunk in tqdm(chunks, unit="batch", leave=False, delay=2, disable=None if self.progress else True):
            with self._autocast():
                answer = outputs(chunk)
                for k in range(len(chunk)):
                    scored.append(self.score(_tree.map_tensors(_every(len(chunk), k), answer)).detach())
        together = torch.stack(scored, dim=1)
        return together if together.dtype == torch.float64 else together.float()

    @cached_property
    def _moments(self) -> dict[str, tuple[Tensor, Tensor, Tensor]]:
        """Means of g, g² and g³ over noisy repeats; the same noise for every image, whatever batch it is in."""
        generator = torch.Generator().manual_seed(self.seed)
        sums: dict[str, list[Tensor]] = {}
        for _ in range(NOISY_REPEATS):
            noise = NOISE * torch.randn(self.images.shape[1:], generator=generator)
            shaken = self.images + noise.to(self.images)
            repeated = self._laid_out(lambda images: self._repeat(images, self.targets, "from_layer")[1], shaken)
            for name, gradient in repeated.items():
                gradient = gradient.float() if gradient.dtype != torch.float64 else gradient
                powers = [gradient, gradient**2, gradient**3]
                sums[name] = [a + b for a, b in zip(sums[name], powers, strict=True)] if name in sums else powers
        return {name: tuple(p / NOISY_REPEATS for p in powers) for name, powers in sums.items()}  # type: ignore[misc]

    @cached_property
    def _bias_terms(self) -> list[Tensor]:
        layers = [(name, m) for name, m in self.model.named_modules() if isinstance(m, (nn.Conv2d, nn.BatchNorm2d))]
        biases = {name: bias for name, m in layers if (bias := _bias(m)) is not None}
        targets = [Target(name, m, lambda output: ()) for name, m in layers if name in biases]
        if not targets:
            raise ValueError(
                "fullgrad needs a model with biases in its convolutions or batch norms, and this one has none."
            )
        captured, grads = self._repeat(self.images, targets, "from_images")
        terms = [captured.images.detach() * grads[""]]
        terms += [biases[name.partition("#")[0]][None, :, None, None] * grads[name] for name in grads if name]
        return [term if term.dtype == torch.float64 else term.float() for term in terms]

    def _repeat(self, images: Tensor, targets: list[Target], record: Any) -> tuple[Captured, dict[str, Tensor]]:
        """Another forward and gradient call; with ``"from_images"`` the images' own gradient is under ""."""
        captured = capture(self.model, images, targets, record=record, forward=self.forward)
        if captured.interrupted and record == "from_layer":
            captured = capture(self.model, images, targets, record="from_start", forward=self.forward)
        with torch.enable_grad():
            scores = self.score(captured.outputs)
            if record == "from_images":
                captured.activations[""] = captured.images
            return captured, gradients(scores, captured)


def hessian_vectors(first: Mapping[str, Tensor], captured: Captured) -> dict[str, Tensor]:
    """The score's Hessian times the activations, for each layer; zeros where the score is linear in them.

    ``first`` are the gradients, made with ``create_graph``.
    """
    products = {}
    for name, gradient in first.items():
        activation = captured.activations[name]
        product = None
        if gradient.requires_grad:
            product = torch.autograd.grad(
                gradient, activation, grad_outputs=activation.detach(), retain_graph=True, allow_unused=True
            )[0]
        products[name] = torch.zeros_like(activation) if product is None else product
    return products


def finer_score(outputs: Any, target: ClassTarget | None) -> Tensor:
    """Finer-CAM's score (B,): the lead of the explained class over the three whose scores lie closest, weighted by probability.

    Raises:
        ValueError: The target is no class, or the model has only one.
    """
    logits = class_scores(outputs) if target is not None else None
    if target is None or logits is None or logits.shape[1] < 2:
        raise ValueError("finercam compares classes: it needs a class as its target, and a model with at least two.")
    index = target.indices(logits)[:, None]
    own = logits.gather(1, index)
    distance = (logits - own).detach().abs().scatter(1, index, float("inf"))
    others = distance.topk(min(COMPARED_CLASSES, logits.shape[1] - 1), dim=1, largest=False).indices
    rivals = logits.gather(1, others)
    return ((own - rivals) * rivals.softmax(1)).sum(1)  # p_d / Σ p_d is the softmax over d alone


def _bias(layer: nn.Module) -> Tensor | None:
    """The bias that a layer adds, (C,); for a batch norm with the running mean's share."""
    bias = getattr(layer, "bias", None)
    if isinstance(layer, nn.BatchNorm2d) and layer.running_mean is not None and layer.running_var is not None:
        scale = torch.rsqrt(layer.running_var + layer.eps)
        shift = -layer.running_mean * (scale if layer.weight is None else layer.weight * scale)
        return (shift if bias is None else shift + bias).detach()
    return None if bias is None else bias.detach()


def _every(step: int, start: int) -> Callable[[Tensor], Tensor]:
    """Image by image the variants lie next to each other: every ``step``-th belongs to one variant."""
    return lambda tensor: tensor[start::step] if tensor.ndim else tensor


def _cycled(images: Tensor, count: int) -> Tensor:
    return images.repeat(-(-count // len(images)), 1, 1, 1)[:count]
