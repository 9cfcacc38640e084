"""Which map is blank, and which layer would show it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

_CANDIDATES = 24  # layers that are asked, those nearest to the end


def blank_note(
    method: str,
    layers: Sequence[str],
    candidates: Sequence[str],
    shows: Callable[[list[str]], Mapping[str, bool]],
    friendly: Mapping[str, str],
) -> str:
    """``"gradcam is blank at neck_c2f22 (model.21); model.15 shows it"``.

    Args:
        method: Its name.
        layers: Those whose map is blank, by dotted name.
        candidates: Other layers, by dotted name, in the order in which they run.
        shows: Of layers, whether the method's map on each is not blank; an error means that none could be asked.
        friendly: Friendly name → dotted name.
    """
    named = {dotted: name for name, dotted in friendly.items()}
    blank = f"{method} is blank at {', '.join(_called(layer, named) for layer in layers)}"
    others = [name for name in candidates if name not in layers][-_CANDIDATES:]
    try:
        found = [name for name, shown in shows(others).items() if shown] if others else []
    except (RuntimeError, ValueError, KeyError, TypeError):
        found = []
    if not found:
        return f"{blank}, and at no other layer asked is there anything that speaks for this score"
    return f"{blank}; {' and '.join(_called(name, named) for name in _last(found))} would show it"


def _last(names: Iterable[str], most: int = 2) -> list[str]:
    return list(names)[-most:]


def _called(layer: str, named: Mapping[str, str]) -> str:
    return f"{named[layer]} ({layer})" if layer in named else layer
