"""The registry: a CAM method is one pure function and one ``@register`` line."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from torch import Tensor

from cam_engine.errors import UnknownNameError, nearest

CamFunction = Callable[..., Tensor]

# What a method may ask for beside ``activations`` (B, C, h, w), each an argument of that name. What costs more than the one
# forward and the one gradient call says what.
NEEDS = {
    "gradients": "(B, C, h, w), of the explained score with respect to the activations",
    "hessian_vector": "(B, C, h, w), the score's Hessian times the activations; a second gradient call",
    "finer_gradients": "(B, C, h, w), of the score's lead over the most similar classes; a second gradient call",
    "gradient_moments": "means of g, g² and g³ over noisy repeats, three of (B, C, h, w); a forward and gradient call each",
    "bias_terms": "FullGrad's terms, a list of (B, C_l, h_l, w_l); a forward and gradient call from the images on",
    "class_weights": "(B, C), the final linear layer's weights of the explained class",
    "scores": "(B,), the explained score",
    "images": "(B, channels, H, W)",
    "layer": "the module that is explained",
    "rescore_images": "callable (variant, count) -> (B, count); count forwards",
    "rescore_evidence": "as rescore_images, but of a class the log-probability",
    "rescore_activations": "callable (variant, count) -> (B, count); count forwards from the layer on",
    "generator": "torch.Generator on the CPU, seeded alike at every call",
}
OPTIONS = {
    "component": "which principal component, counted from 0",
    "center": "whether channels are centred before a decomposition",
}


@dataclass(frozen=True)
class Method:
    """A registered method: its function, and what it takes beside ``activations``."""

    name: str
    function: CamFunction
    needs: frozenset[str]
    options: frozenset[str]


_METHODS: dict[str, Method] = {}


def register(
    name: str, *, needs: Iterable[str] = (), options: Iterable[str] = ()
) -> Callable[[CamFunction], CamFunction]:
    """Register a CAM method under ``name``; from then on ``CAM(model, methods=name)`` uses it.

    The function takes ``activations`` (B, C, h, w), float32, and what ``needs`` and ``options`` name, all as keyword
    arguments. It returns, signed and before ReLU, one of

    - (B, C): a weight for each channel; the map is the weighted sum of the activations,
    - (B, C, h, w): activations weighted cell by cell; the map is their sum over channels,
    - (B, h, w): the map itself.

    The first two can be smoothed by ``eigen_smooth``.

    Args:
        name: Lower-case name, new or of a method to replace.
        needs: Keys of :data:`cam_engine.methods.registry.NEEDS`, such as ``"gradients"``.
        options: Settings of ``CAM`` that the function takes: ``"component"``, ``"center"``.

    >>> from cam_engine import register
    >>> @register("gradient norm", needs=["gradients"])
    ... def gradient_norm(activations, gradients):
    ...     return gradients.norm(dim=(2, 3))
    """
    if not isinstance(name, str):
        raise TypeError(f'register takes a name: @register("my method"), not @register; it was given {name!r}.')
    needs, options = frozenset(needs), frozenset(options)
    if needs - NEEDS.keys() or options - OPTIONS.keys():
        raise ValueError(
            f"method {name!r}: unknown {sorted((needs - NEEDS.keys()) | (options - OPTIONS.keys()))}; "
            f"needs= takes {list(NEEDS)}, options= takes {list(OPTIONS)}."
        )

    def decorate(function: CamFunction) -> CamFunction:
        _METHODS[name] = Method(name, function, needs, options)
        return function

    return decorate


def available_methods() -> list[str]:
    """Names of all registered methods, in order."""
    return list(_METHODS)


def get_method(name: str) -> Method:
    """Look a method up by name; ``GradCAM``, ``gradcampp`` and ``gradcam++`` are understood.

    Raises:
        UnknownNameError: (a KeyError) names the nearest methods.
        TypeError: Not a string.
    """
    if not isinstance(name, str):
        raise TypeError(
            f"a method is named by a string, not {type(name).__name__} ({name!r}); one of {', '.join(_METHODS)}."
        )
    if name in _METHODS:
        return _METHODS[name]
    wanted = _plain(name)
    for known, method in _METHODS.items():
        if wanted in (_plain(known), _plain(known.replace("+", "p"))):
            return method
    raise UnknownNameError(
        f"no CAM method {name!r}; nearest: {nearest(wanted, _METHODS)}. Available: {', '.join(_METHODS)}."
    )


def _plain(name: str) -> str:
    return "".join(c for c in name.lower() if c not in "-_ ")
