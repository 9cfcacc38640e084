"""The registry: a CAM method is one pure function and one ``@register`` line."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from torch import Tensor

from cam_engine.errors import UnknownNameError, nearest
from cam_engine.methods.needs import NEEDS, OPTIONS

CamFunction = Callable[..., Tensor]


@dataclass(frozen=True)
class Method:
    """A registered method: its function, and what it takes beside ``activations``."""

    name: str
    function: CamFunction
    needs: frozenset[str]
    options: frozenset[str]

    @property
    def explains_score(self) -> bool:
        """Is its map about a score? If not, it shows what the layer responds to, whatever the target."""
        return any(NEEDS[name].score for name in self.needs)

    @property
    def reruns(self) -> bool:
        """Does it run the model again, beyond the one forward that all methods share?"""
        return any(NEEDS[name].reruns for name in self.needs)


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
        needs: Keys of :data:`cam_engine.methods.needs.NEEDS`, such as ``"gradients"``.
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
    """Names of all registered methods, in order.

    >>> from cam_engine import available_methods
    >>> available_methods()[:4]
    ['eigencam', 'gradcam', 'gradcam++', 'xgradcam']
    """
    return list(_METHODS)


def get_method(name: str) -> Method:
    """Look a method up by name, as it is spelled here or as a class of it is called elsewhere: ``gradcam++``, ``gradcampp``,
    ``GradCAMPlusPlus``; ``FullGradCAM``; ``GradCAM Element wise``.

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
        own = _plain(known)
        if wanted in (own, own + "cam", own.replace("+", "p"), own.replace("+", "plus")):
            return method
    raise UnknownNameError(
        f"no CAM method {name!r}; nearest: {nearest(wanted, _METHODS)}. Available: {', '.join(_METHODS)}."
    )


def _plain(name: str) -> str:
    return "".join(c for c in name.lower() if c not in "-_ ")
