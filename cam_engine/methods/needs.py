"""What a method may ask for beside ``activations``: what it is, what it costs, and what the forward has to keep for it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from cam_engine.extras import NOISY_REPEATS, Extras


@dataclass(frozen=True)
class Need:
    """Something that a method gets as an argument.

    ``gives``: what it is, with its shape. ``take``: where it comes from, of a batch and for a layer.

    ``score``: it is about the explained score, so the forward runs to its end; a method without any such need explains no
    score, and its forward may stop at the layer. ``recorded``: it is a gradient of that one forward, which is recorded from
    the first layer on; ``second_order``: a gradient of a gradient. ``fresh``: made anew for each method.

    The cost, on top of the one forward: ``gradient_calls`` (one for each need, whatever the number of methods that share
    it), ``forwards``, and with ``variants`` a forward for each variant that the method asks about.
    """

    gives: str
    take: Callable[[Extras, str], Any]
    score: bool = True
    recorded: bool = False
    second_order: bool = False
    fresh: bool = False
    gradient_calls: int = 0
    forwards: int = 0
    variants: bool = False

    @property
    def reruns(self) -> bool:
        """Does the model run again for it, on these images or on variants of them?"""
        return self.forwards > 0 or self.variants


NEEDS: Mapping[str, Need] = {
    "gradients": Need(
        "(B, C, h, w), of the explained score with respect to the activations",
        Extras.gradients,
        recorded=True,
        gradient_calls=1,
    ),
    "hessian_vector": Need(
        "(B, C, h, w), the score's Hessian times the activations",
        Extras.hessian_vector,
        recorded=True,
        second_order=True,
        gradient_calls=1,
    ),
    "finer_gradients": Need(
        "(B, C, h, w), of the score's lead over the most similar classes",
        Extras.finer_gradients,
        recorded=True,
        gradient_calls=1,
    ),
    "gradient_moments": Need(
        "means of g, g² and g³ over noisy repeats, three of (B, C, h, w)",
        Extras.gradient_moments,
        forwards=NOISY_REPEATS,
        gradient_calls=NOISY_REPEATS,
    ),
    "bias_terms": Need(
        "FullGrad's terms, a list of (B, C_l, h_l, w_l)",
        Extras.bias_terms,
        forwards=1,
        gradient_calls=1,
    ),
    "class_weights": Need("(B, C), the final linear layer's weights of the explained class", Extras.class_weights),
    "scores": Need("(B,), the explained score", Extras.explained_scores),
    "images": Need("(B, channels, H, W)", Extras.images, score=False),
    "layer": Need("the module that is explained", Extras.module, score=False),
    "rescore_images": Need(
        "callable (variant, count) -> (B, count), scores of changed images", Extras.rescore_images, variants=True
    ),
    "rescore_activations": Need(
        "callable (variant, count) -> (B, count), scores with the layer changed",
        Extras.rescore_activations,
        variants=True,
    ),
    "generator": Need(
        "torch.Generator on the CPU, seeded alike at every call", Extras.generator, score=False, fresh=True
    ),
}
OPTIONS: Mapping[str, str] = {
    "component": "which principal component, counted from 0",
    "center": "whether channels are centred before a decomposition",
}


@dataclass(frozen=True)
class Plan:
    """What the one forward of a call has to be like, for everything that its methods need.

    ``score``: it runs to its end. ``recorded``: for gradients, and ``second_order``: for gradients of gradients.
    ``keep_graph``: gradients are taken of it more than once.
    """

    score: bool
    recorded: bool
    second_order: bool
    keep_graph: bool

    @classmethod
    def of(cls, needs: Iterable[str]) -> Plan:
        wanted = [NEEDS[name] for name in set(needs)]
        return cls(
            score=any(need.score for need in wanted),
            recorded=any(need.recorded for need in wanted),
            second_order=any(need.second_order for need in wanted),
            keep_graph=sum(need.recorded for need in wanted) > 1,
        )
