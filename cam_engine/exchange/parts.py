"""The list of parts that two images can exchange: a new one is one function and one line here."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import Tensor

from cam_engine.errors import nearest
from cam_engine.exchange import mixtures

# What a part's function may ask for after ``donor`` and ``receiver`` (B, C, H, W).
NEEDS = {
    "masks": "the objects of donor and receiver, two of (B, H, W); only pairs with two masks whose union leaves something",
    "nuisance": "the suspected regions of both, two of (B, H, W); only pairs where their union is neither empty nor everything",
    "maps": "where the maps of both are highest, two of (B, H, W); only pairs with two valid maps, one method after the other",
    "shifts": "(B, 2) int, a seeded move of each pair, in pixels down and right",
}


@dataclass(frozen=True)
class Part:
    """``function(donor, receiver, *needs) -> (B, C, H, W)``. ``words`` end the sentence "the prediction follows …".
    ``default``: tested, wherever what it needs is known, without being asked for.

    >>> from cam_engine.exchange import get_part
    >>> part = get_part("object")
    >>> part.needs, f"the prediction follows {part.words}"
    (('masks',), 'the prediction follows the object')
    """

    name: str
    function: Callable[..., Tensor]
    needs: tuple[str, ...]
    words: str
    default: bool = False


_PARTS: dict[str, Part] = {}


def register_part(
    name: str, function: Callable[..., Tensor], needs: Sequence[str] = (), *, words: str, default: bool = False
) -> None:
    """Make a part known under ``name``; from then on ``follows(..., parts=[name])`` tests it.

    Raises:
        ValueError: A need that is none of :data:`NEEDS`, or a name that cannot stand in a metric key.

    >>> from cam_engine.exchange import available_parts, register_part
    >>> def left_half(donor, receiver):
    ...     half = donor.shape[3] // 2
    ...     return torch.cat([donor[..., :half], receiver[..., half:]], 3)
    >>> register_part("left_half", left_half, words="the left half")
    >>> available_parts()[-1]
    'left_half'
    """
    if unknown := [need for need in needs if need not in NEEDS]:
        raise ValueError(f"part {name!r}: unknown needs {unknown}; a part may take {', '.join(NEEDS)}.")
    if not name.isidentifier():
        raise ValueError(f"a part's name stands in keys; {name!r} must be letters, digits and '_'.")
    _PARTS[name] = Part(name, function, tuple(needs), words, default)


def available_parts() -> list[str]:
    """Names of all parts, in order.

    >>> from cam_engine.exchange import available_parts
    >>> available_parts()
    ['focus', 'random', 'object', 'background', 'nuisance', 'frame', 'detail', 'coarse', 'spectrum', 'colour']
    """
    return list(_PARTS)


def get_part(name: str) -> Part:
    """Look a part up by name.

    Raises:
        ValueError: No such part; names the nearest.

    >>> from cam_engine.exchange import get_part
    >>> get_part("frame").words
    'the outermost pixels'
    """
    if name not in _PARTS:
        near = nearest(str(name), _PARTS)
        raise ValueError(f"no exchange part {name!r}; nearest: {near}. Available: {', '.join(_PARTS)}.")
    return _PARTS[name]


def default_parts(*, masks: bool = False, nuisance: bool = False, maps: bool = False) -> tuple[str, ...]:
    """Names of the parts that are tested without being asked for, given what is known of the images.

    >>> from cam_engine.exchange import default_parts
    >>> default_parts(), default_parts(masks=True)
    (('frame', 'detail'), ('object', 'background', 'frame', 'detail'))
    """
    known = {"shifts"} | {need for need, there in (("masks", masks), ("nuisance", nuisance), ("maps", maps)) if there}
    return tuple(part.name for part in _PARTS.values() if part.default and set(part.needs) <= known)


_FOCUS, _RANDOM = "the places where the map is highest", "random places as large as the map's highest"
register_part("focus", mixtures.regions_exchange, ("maps",), words=_FOCUS, default=True)
register_part("random", mixtures.moved_regions_exchange, ("maps", "shifts"), words=_RANDOM, default=True)
register_part("object", mixtures.regions_exchange, ("masks",), words="the object", default=True)
register_part("background", mixtures.background_exchange, ("masks",), words="the background", default=True)
register_part("nuisance", mixtures.regions_exchange, ("nuisance",), words="the suspected region", default=True)
register_part("frame", mixtures.frame_exchange, words="the outermost pixels", default=True)
register_part("detail", mixtures.detail_exchange, words="fine detail", default=True)
register_part("coarse", mixtures.coarse_exchange, words="coarse structure")
register_part("spectrum", mixtures.spectrum_exchange, words="the amplitudes of the spatial frequencies")
register_part("colour", mixtures.colour_exchange, words="brightness and contrast of each channel")
