"""What is different for a detector: which detections are explained, and a part for each."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cam_engine.explain.one import Explanation, Request
    from cam_engine.explain.pictures import Picture
    from cam_engine.loading import Loaded


def detector_of(loaded: Loaded) -> Any:
    """The detector family of the model; None for other models."""
    return None


def explain_detector(family: Any, loaded: Loaded, picture: Picture, request: Request) -> dict[str, Explanation]:
    """For each method, what :func:`cam_engine.explain` returns for a detector."""
    raise NotImplementedError
