"""The registry: a CAM method is one pure function and one ``@register`` line."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from cam_engine.errors import UnknownNameError, nearest

CamFunction = Callable[..., Tensor]


@dataclass(frozen=True)
class Method:
    """A registered method.

    ``function`` takes ``activations`` (B, C, h, w), float32, and whatever ``needs`` and ``options`` name as keyword
    arguments; it returns the map (B, h, w), signed, before ReLU.
    """

    name: str
    function: CamFunction
    needs: frozenset[str]
    options: frozenset[str]

    @property
    def uses_gradients(self) -> bool:
        return "gradients" in self.needs


_METHODS: dict[str, Method] = {}

NEEDS = frozenset({"gradients"})
OPTIONS = frozenset({"component", "center"})


def register(
    name: str, *, needs: Iterable[str] = (), options: Iterable[str] = ()
) -> Callable[[CamFunction], CamFunction]:
    """Register a CAM method under ``name``; from then on ``CAM(model, methods=name)`` uses it.

    Args:
        name: Lower-case name.
        needs: What the function gets beside ``activations``, each as an argument of that name: ``"gradients"`` (B, C,
            h, w).
        options: Settings of ``CAM`` that the function takes: ``"component"``, ``"center"``.

    >>> from cam_engine import register
    >>> @register("mean", needs=())
    ... def mean(activations):
    ...     return activations.mean(1)
    """
    needs, options = frozenset(needs), frozenset(options)
    if needs - NEEDS or options - OPTIONS:
        raise ValueError(
            f"method {name!r}: unknown {sorted((needs - NEEDS) | (options - OPTIONS))}; "
            f"needs= takes {sorted(NEEDS)}, options= takes {sorted(OPTIONS)}."
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
            f"a method is named by a string, not {type(name).__name__} ({name!r}); one of {available_methods()}."
        )
    wanted = name if name in _METHODS else name.lower().replace("-", "").replace(" ", "")
    for known, method in _METHODS.items():
        if wanted in (known, metric_name(known)):
            return method
    raise UnknownNameError(
        f"no CAM method {name!r}; nearest: {nearest(wanted, _METHODS)}. Available: {', '.join(_METHODS)}."
    )


def metric_name(method: str) -> str:
    """A method's name as it stands in metric keys, where MLflow allows no ``+``: ``gradcam++`` → ``gradcampp``."""
    return method.replace("+", "p")


def call(method: Method, available: dict[str, Any]) -> Tensor:
    """Call a method with what its registration asks for."""
    return method.function(**{name: available[name] for name in {"activations"} | method.needs | method.options})
