"""What the browser draws: the colours and the interpolation of cam_engine.render, as opaque as the map is high."""

import cv2
import numpy as np
import pytest
from driving import pixels, show_images, shown_images

from cam_engine.render import colorize, unit_scale, upsample

pytestmark = pytest.mark.browser


def drawn_here(run, image, side, colormap, alpha, cells):
    """(1 - alpha h) picture + alpha h colour, of a map's height h in [0, 1], on the picture enlarged as a browser enlarges it."""
    picture = cv2.resize(run.probe["pictures"][image], (side, side), interpolation=cv2.INTER_LINEAR)
    scaled = unit_scale(run.records[-1].maps["gradcam", "features"][image])
    at = ((np.arange(side) + 0.5) * 12 / side).astype(int)  # the cell that each pixel's centre lies in
    large = scaled[np.ix_(at, at)] if cells else upsample(scaled, (side, side))
    share = alpha * large[..., None]
    return (1 - share) * picture + share * colorize(large, colormap)


@pytest.mark.parametrize(
    ("colormap", "alpha", "cells"),
    [("inferno", 0.5, False), ("jet", 0.5, False), ("inferno", 0.8, True), ("viridis", 1, False), ("turbo", 0, False)],
)
def test_an_overlay_is_as_opaque_as_its_map_is_high(colormap, alpha, cells, two, runs, open_page):
    page = open_page(two, hash=f"#outlines=0&colormap={colormap}&opacity={alpha}&cells={int(cells)}")
    show_images(page)
    for index, run in enumerate(runs):
        for image in shown_images(page)[1:4]:
            here = pixels(page, index, image).astype(int)
            there = drawn_here(run, image, here.shape[0], colormap, alpha, cells).astype(int)
            assert here.shape == there.shape
            off = np.abs(here - there)
            assert off.mean() < 1.2
            assert np.percentile(off, 99) <= 5
            assert off.max() <= 18  # Chromium places samples to a sixteenth of a pixel


def test_a_picture_at_its_own_size_is_exact(two, runs, open_page):
    """At 48 pixels, the size of the pictures, nothing is interpolated but the map."""
    page = open_page(two, hash="#outlines=0&opacity=0")
    show_images(page)
    image = shown_images(page)[1]
    page.evaluate("document.querySelectorAll('.cards canvas').forEach(it => (it.style.width = '48px'))")
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("ArrowRight")
    assert (pixels(page, 0, image) == runs[0].probe["pictures"][image]).all()


def test_outlines_lie_on_the_borders_of_the_masks(two, runs, open_page):
    page = open_page(two, hash="#opacity=0")
    show_images(page)
    image = shown_images(page)[1]
    here = pixels(page, 0, image).astype(int)
    green = (np.abs(here - (92, 255, 157)).sum(2) < 150) & (here[..., 1] > 150)
    mask = runs[0].probe["masks"][image]
    side = here.shape[0]
    rows, columns = np.nonzero(mask)
    scale = side / 48
    top, bottom, left, right = ((v + 0.5) * scale for v in (rows.min(), rows.max(), columns.min(), columns.max()))
    ys, xs = np.nonzero(green)
    near = np.minimum(np.minimum(abs(ys - top), abs(ys - bottom)), np.minimum(abs(xs - left), abs(xs - right)))
    assert len(ys) > 2 * side / 2
    assert (near < 3).mean() > 0.9
