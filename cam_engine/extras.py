"""What methods may ask for beside activations, each computed once for a batch and only if asked for.

:data:`cam_engine.methods.needs.NEEDS` lists it by name, with what each costs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import torch
from torch import Generator, Tensor, nn

from cam_engine.capture import Captured, Recording, Tap, capture, gradients
from cam_engine.grids import GridView
from cam_engine.rescoring import Rescorer, Variant
from cam_engine.sharding import weight_and_bias, whole
from cam_engine.targets.classes import ClassTarget
from cam_engine.targets.scores import class_scores

NOISE = 0.3  # standard deviation of SmoothGrad's noise, in the units of the normalised images
NOISY_REPEATS = 4
COMPARED_CLASSES = 3


@dataclass(frozen=True, eq=False)
class Extras:
    """One explained batch, and everything that can be asked about it.

    ``views``: for each layer, what turns its raw output into (B, C, h, w). ``scores`` (B,): what is explained, in the
    graph; empty where no score is. ``picked``: what ``output=`` picks out of the outputs, which the score is computed
    from. ``class_target``: the target where it is a class. ``rescorer`` knows the model, the images and the score.
    ``keep_graph``: more gradients of the captured forward are to come; ``second_order``: so are gradients of gradients.
    """

    captured: Captured
    views: Mapping[str, GridView]
    scores: Tensor
    picked: Any
    class_target: ClassTarget | None
    rescorer: Rescorer
    seed: int
    keep_graph: bool
    second_order: bool

    def activations(self, layer: str) -> Tensor:
        return self.views[layer](whole(self.captured.activations[layer]))

    def gradients(self, layer: str) -> Tensor:
        return self.views[layer](whole(self.raw_gradients[layer]))

    def hessian_vector(self, layer: str) -> Tensor:
        """The score's Hessian times the activations; zeros where the score is linear in them."""
        gradient, activation = self.raw_gradients[layer], self.captured.activations[layer]
        product = None
        if gradient.requires_grad:
            product = torch.autograd.grad(
                gradient, activation, grad_outputs=activation.detach(), retain_graph=True, allow_unused=True
            )[0]
        return self.views[layer](whole(torch.zeros_like(activation) if product is None else product))

    def finer_gradients(self, layer: str) -> Tensor:
        return self.views[layer](whole(self._raw_finer_gradients[layer]))

    def gradient_moments(self, layer: str) -> tuple[Tensor, ...]:
        return tuple(self.views[layer](moment) for moment in self._raw_moments[layer])

    def bias_terms(self, layer: str) -> list[Tensor]:
        return self._bias_terms

    def class_weights(self, layer: str) -> Tensor:
        activation = self.activations(layer)
        logits = None if self.class_target is None else class_scores(self.picked)
        linear = []
        if logits is not None:
            sizes = (activation.shape[1], logits.shape[1])
            modules = self.rescorer.model.modules()
            linear = [m for m in modules if isinstance(m, nn.Linear) and (m.in_features, m.out_features) == sizes]
        if self.class_target is None or logits is None or not linear:
            raise ValueError(
                f"the method 'cam' needs a class as its target and a model that ends in one linear layer with "
                f"{activation.shape[1]} inputs, the channels of layer {layer!r}, and an output for each class; 'gradcam' is the "
                "same where there is one, and works without."
            )
        weight, _ = weight_and_bias(self.rescorer.model, linear[-1])
        assert weight is not None
        weight = weight.detach().to(activation.dtype)
        if len(weight) == 1:
            return weight * self.class_target.sign(logits)[:, None]
        return weight[self.class_target.indices(logits)]

    def explained_scores(self, layer: str) -> Tensor:
        wide = self.captured.activations[layer].dtype == torch.float64
        return self.scores.detach().to(torch.float64 if wide else torch.float32)

    def images(self, layer: str) -> Tensor:
        return self.rescorer.images

    def module(self, layer: str) -> nn.Module:
        return self.captured.taps[layer].module

    def generator(self, layer: str) -> Generator:
        return torch.Generator().manual_seed(self.seed)

    def rescore_images(self, layer: str) -> Callable[[Variant, int], Tensor]:
        return self.rescorer.of_images

    def rescore_evidence(self, layer: str) -> Callable[[Variant, int], Tensor]:
        return partial(self.rescorer.of_images, score=self.rescorer.evidence)

    def rescore_activations(self, layer: str) -> Callable[[Variant, int], Tensor]:
        def run(variant: Variant, count: int) -> Tensor:
            return self.rescorer.of_activations(layer, self.captured, self.views[layer], variant, count)

        return run

    @cached_property
    def raw_gradients(self) -> dict[str, Tensor]:
        """Of the score with respect to what each layer returned.

        Raises:
            NoGradientError: The score has none.
        """
        with torch.enable_grad():
            return gradients(
                self.scores, self.captured.activations, retain_graph=self.keep_graph, create_graph=self.second_order
            )

    @cached_property
    def _raw_finer_gradients(self) -> dict[str, Tensor]:
        with torch.enable_grad():
            lead = finer_score(self.picked, self.class_target)
            return gradients(lead, self.captured.activations, retain_graph=self.keep_graph)

    @cached_property
    def _raw_moments(self) -> dict[str, tuple[Tensor, ...]]:
        """Means of g, g² and g³ over noisy repeats; the same noise for every image, whatever batch it is in."""
        generator = torch.Generator().manual_seed(self.seed)
        images, taps = self.rescorer.images, list(self.captured.taps.values())
        record: Recording = "from_layer" if self.captured.recording == "nothing" else self.captured.recording
        sums: dict[str, list[Tensor]] = {}
        for _ in range(NOISY_REPEATS):
            noise = NOISE * torch.randn(images.shape[1:], generator=generator)
            shaken = images + noise.to(images)
            repeated, grads = self.rescorer.laid_out(
                lambda given, record=record: self._again(given, taps, record),  # type: ignore[misc]
                shaken,
            )
            record = repeated.recording
            for name, gradient in grads.items():
                gradient = whole(gradient)
                gradient = gradient.float() if gradient.dtype != torch.float64 else gradient
                powers = [gradient, gradient**2, gradient**3]
                sums[name] = [a + b for a, b in zip(sums[name], powers, strict=True)] if name in sums else powers
        return {name: tuple(p / NOISY_REPEATS for p in powers) for name, powers in sums.items()}

    @cached_property
    def _bias_terms(self) -> list[Tensor]:
        modules = self.rescorer.model.named_modules()
        layers = [(name, m) for name, m in modules if isinstance(m, (nn.Conv2d, nn.BatchNorm2d))]
        biases = {name: bias for name, m in layers if (bias := _bias(self.rescorer.model, m)) is not None}
        taps = [Tap(name, m, lambda output: ()) for name, m in layers if name in biases]
        if not taps:
            raise ValueError(
                "fullgrad needs a model with biases in its convolutions or batch norms, and this one has none."
            )
        captured, grads = self._again(self.rescorer.images, taps, "from_images")
        terms = [captured.images.detach() * grads.pop("")]
        terms += [biases[name.partition("#")[0]][None, :, None, None] * gradient for name, gradient in grads.items()]
        return [term if term.dtype == torch.float64 else term.float() for term in terms]

    def _again(self, images: Tensor, taps: list[Tap], record: Recording) -> tuple[Captured, dict[str, Tensor]]:
        """Another forward and gradient call; with ``"from_images"`` the images' own gradient is under ""."""
        rescorer = self.rescorer
        captured = capture(rescorer.model, images, taps, record=record, forward=rescorer.forward)
        leaves = captured.activations | ({"": captured.images} if record == "from_images" else {})
        with torch.enable_grad():
            return captured, gradients(rescorer.score(captured.outputs), leaves)


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


def _bias(model: nn.Module, layer: nn.Conv2d | nn.BatchNorm2d) -> Tensor | None:
    """The bias that a layer adds, (C,); for a batch norm with the running mean's share."""
    weight, bias = weight_and_bias(model, layer)
    if isinstance(layer, nn.BatchNorm2d) and layer.running_mean is not None and layer.running_var is not None:
        scale = torch.rsqrt(layer.running_var + layer.eps)
        shift = -layer.running_mean * (scale if weight is None else weight * scale)
        return (shift if bias is None else shift + bias).detach()
    return None if bias is None else bias.detach()
