"""From a map's numbers to colours on a picture."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cam_engine.render._cv2 import cv2
from cam_engine.validity import valid_maps


def _between(*colors: tuple[int, int, int]) -> NDArray[np.uint8]:
    """A table of 256 colours, BGR as OpenCV takes it, evenly through RGB colours."""
    places = np.linspace(0, 1, len(colors))
    channels = [np.interp(np.linspace(0, 1, 256), places, channel) for channel in zip(*colors, strict=True)]
    return np.rint(np.stack(channels[::-1], axis=-1)).astype(np.uint8)[:, None]


_CODES: dict[str, int | NDArray[np.uint8]] = {
    "inferno": cv2.COLORMAP_INFERNO,
    "viridis": cv2.COLORMAP_VIRIDIS,
    "magma": cv2.COLORMAP_MAGMA,
    "plasma": cv2.COLORMAP_PLASMA,
    "cividis": cv2.COLORMAP_CIVIDIS,
    "turbo": cv2.COLORMAP_TURBO,
    "jet": cv2.COLORMAP_JET,
    "red": _between((255, 245, 160), (254, 200, 80), (250, 130, 40), (230, 40, 25), (190, 0, 25)),
}

COLORMAPS: tuple[str, ...] = tuple(_CODES)
"""Names that ``colormap=`` takes. The first five are perceptually uniform: equal steps look equal. The peak of the last three is
red; ``"red"`` begins at a pale yellow."""

# Chosen by looking, on photographs and on dark digits. Inferno works as a spotlight: what is not looked at only
# darkens and keeps its hues, so a coloured tag stays a coloured tag. Viridis tints all the rest purple, and its green
# middle drowns in leaves and grass; turbo and jet paint over the picture, and their bands look like edges of the map.
DEFAULT_COLORMAP = "inferno"

_FADE = (0.2, 0.6)  # with focus=True: below the first the picture stays as it is, from the second on the share is alpha


def is_valid(heatmap: ArrayLike) -> bool:
    """Whether a map (h, w) says anything: every value finite, and a sum after ReLU above 1e-12.

    Raises:
        TypeError, ValueError: No 2-d array of numbers.

    >>> from cam_engine.render import is_valid
    >>> is_valid([[0.0, 2.0]]), is_valid([[0.0, -1.0]]), is_valid([[np.nan, 1.0]])
    (True, False, False)
    """
    return bool(valid_maps(_as_map(heatmap)[None])[0])


def unit_scale(heatmap: ArrayLike) -> NDArray[np.float32]:
    """ReLU, then min-max to [0, 1] on the map's own grid: the face of a map that pictures show.

    Args:
        heatmap: (h, w), any real dtype, finite.

    Returns:
        (h, w) float32. The lowest cell is 0 and the highest 1 whatever the size of the values (1e-20 or 1e20);
        a map whose cells are all equal becomes zeros.

    Raises:
        ValueError: The map holds NaN or infinity (ask ``is_valid`` first), or is not 2-d.

    >>> from cam_engine.render import unit_scale
    >>> unit_scale([[-1.0, 0.5, 2.0]])
    array([[0.  , 0.25, 1.  ]], dtype=float32)
    """
    values = _as_map(heatmap)
    if not np.isfinite(values).all():
        raise ValueError("heatmap holds NaN or infinity and cannot be scaled; check is_valid(heatmap) first")
    values = np.maximum(values, 0)
    low, high = values.min(), values.max()
    if high == low:
        return np.zeros(values.shape, np.float32)
    scaled: NDArray[np.float32] = ((values - low) / (high - low)).astype(np.float32)
    return scaled


def upsample(heatmap: ArrayLike, size: tuple[int, int]) -> NDArray[np.float32]:
    """Bilinear with half-pixel centres, as ``torch.nn.functional.interpolate(..., align_corners=False)``.

    Computed in float64 and then rounded: equal to torch in float64 to 1e-7. (In float32 torch rounds its sample
    positions, which costs it up to 1e-6 where H is no power-of-two multiple of h.)

    Args:
        heatmap: (h, w), any real dtype.
        size: (H, W) of the result, in pixels.

    Returns:
        (H, W) float32.

    >>> from cam_engine.render import upsample
    >>> upsample([[0.0, 1.0]], (1, 4))
    array([[0.  , 0.25, 0.75, 1.  ]], dtype=float32)
    """
    height, width = _as_size(size)
    return np.asarray(cv2.resize(_as_map(heatmap), (width, height), interpolation=cv2.INTER_LINEAR), np.float32)


def colorize(heatmap: ArrayLike, colormap: str = DEFAULT_COLORMAP) -> NDArray[np.uint8]:
    """Look each value up in a colour map.

    Args:
        heatmap: (H, W) in [0, 1].
        colormap: One of ``COLORMAPS``.

    Returns:
        (H, W, 3) uint8 RGB.

    Raises:
        ValueError: A value is outside [0, 1] or NaN (use ``unit_scale``), or the colour map is unknown.

    >>> from cam_engine.render import colorize
    >>> colorize([[0.0, 1.0]], "viridis")
    array([[[ 68,   1,  84],
            [253, 231,  37]]], dtype=uint8)
    """
    values = _as_map(heatmap)
    table = _table(colormap)
    slack = 1e-6  # float32 interpolation may land just outside
    if not (values.min() >= -slack and values.max() <= 1 + slack):
        raise ValueError(
            f"colorize takes values in [0, 1], got {values.min():.4g} to {values.max():.4g}; "
            "scale with unit_scale first"
        )
    levels = np.rint(values.clip(0, 1) * 255).astype(np.uint8)
    return np.take(table, levels, axis=0)


def overlay(
    image: NDArray[np.uint8],
    heatmap: ArrayLike | None,
    *,
    alpha: float = 0.5,
    colormap: str = DEFAULT_COLORMAP,
    cells: bool = False,
    focus: bool = False,
) -> NDArray[np.uint8]:
    """Blend a map onto its picture: ``(1 - alpha) * image + alpha * colour``.

    The map is min-max scaled on its own grid, then upsampled. The blend is never divided by the picture's own
    maximum, so the same image under the same map has the same brightness at every epoch.

    Args:
        image: (H, W, 3) uint8 RGB.
        heatmap: (h, w) on any grid, before or after ReLU. None, or a map that is not ``is_valid``, leaves the
            picture as it is.
        alpha: Share of the colour, 0 to 1.
        colormap: One of ``COLORMAPS``.
        cells: Show the map's own cells as squares instead of interpolating between them.
        focus: Colour the focus only: the share falls from ``alpha``, where the scaled map is at least 0.6, to nothing at 0.2,
            so that what is not looked at stays the photograph.

    Returns:
        (H, W, 3) uint8 RGB, a new array.

    Raises:
        TypeError: ``image`` is no uint8 array.
        ValueError: A wrong shape, an alpha outside [0, 1] or an unknown colour map.

    >>> from cam_engine.render import overlay
    >>> picture = np.full((4, 4, 3), 100, np.uint8)
    >>> overlay(picture, np.eye(2), alpha=0.5).shape, bool((overlay(picture, None) == picture).all())
    ((4, 4, 3), True)
    """
    image = check_image(image)
    check_blend(alpha, colormap)
    if heatmap is None or not is_valid(heatmap):
        return image.copy()
    scaled, (height, width) = unit_scale(heatmap), image.shape[:2]
    if cells:
        large = np.asarray(cv2.resize(scaled, (width, height), interpolation=cv2.INTER_NEAREST_EXACT))
    else:
        large = upsample(scaled, (height, width))
    colors = colorize(large, colormap)
    if not focus:
        return np.asarray(cv2.addWeighted(image, 1 - alpha, colors, alpha, 0), np.uint8)
    share = (alpha * fade(large))[..., None]
    return np.asarray(np.rint(image + share * (colors.astype(np.float32) - image)), np.uint8)


def fade(values: NDArray[Any]) -> NDArray[np.float32]:
    """How much of its colour a value in [0, 1] shows where only the focus is coloured: 0 up to 0.2, smoothly to 1 at 0.6."""
    low, high = _FADE
    share = ((values - low) / (high - low)).clip(0, 1)
    return np.asarray(share * share * (3 - 2 * share), np.float32)


def check_image(image: NDArray[np.uint8], name: str = "image") -> NDArray[np.uint8]:
    """The same picture, contiguous.

    Raises:
        TypeError, ValueError: No uint8 array (H, W, 3).
    """
    if not isinstance(image, np.ndarray):
        raise TypeError(f"{name} must be a numpy array (H, W, 3) of uint8, got {type(image).__name__}")
    if image.dtype != np.uint8:
        raise TypeError(
            f"{name} must be uint8 in 0..255, got {image.dtype}; "
            "for floats in [0, 1]: (image * 255).round().astype(numpy.uint8)"
        )
    if image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape:
        raise ValueError(f"{name} must have shape (H, W, 3), RGB with the channels last, got {image.shape}")
    return np.ascontiguousarray(image)


def check_blend(alpha: float, colormap: str) -> None:
    """Are these a share and a colour map?

    Raises:
        ValueError: ``alpha`` is outside [0, 1], or ``colormap`` is unknown.
    """
    if not 0 <= alpha <= 1:
        raise ValueError(f"alpha is the share of the colour, 0 to 1, got {alpha}")
    _table(colormap)


def _as_map(heatmap: ArrayLike) -> NDArray[np.float64]:
    values = np.asarray(heatmap)
    if values.dtype.kind not in "fiub":
        raise TypeError(f"heatmap must hold real numbers, got {type(heatmap).__name__} of {values.dtype}")
    if values.ndim != 2 or values.size == 0:
        raise ValueError(f"heatmap must have shape (h, w), one map and not empty, got {values.shape}")
    return values.astype(np.float64)


def _as_size(size: tuple[int, int]) -> tuple[int, int]:
    height, width = size
    if height < 1 or width < 1:
        raise ValueError(f"size is (H, W) in pixels, both at least 1, got {size}")
    return int(height), int(width)


@functools.lru_cache(maxsize=len(_CODES))
def _table(colormap: str) -> NDArray[np.uint8]:
    """The 256 colours of a map, (256, 3) uint8 RGB. OpenCV makes them anew at every call, which takes longer than a lookup."""
    if colormap not in _CODES:
        raise ValueError(f"unknown colormap {colormap!r}; known: {', '.join(COLORMAPS)}")
    levels: Any = np.arange(256, dtype=np.uint8)[:, None]
    bgr = np.asarray(cv2.applyColorMap(levels, _CODES[colormap]), np.uint8)
    return np.ascontiguousarray(bgr[:, 0, ::-1])
