"""What the tests do with a page again and again."""

import base64
import io

import numpy as np
from PIL import Image


def place(page):
    return page.locator(".bar .where").inner_text()


def shown_images(page):
    """Indices of the probe images, in the order of the page; −1 is the mean of all."""
    return page.eval_on_selector_all(".card", "cards => cards.map(card => Number(card.dataset.image))")


def pixels(page, run, image):
    """A panel's canvas as (H, W, 3) uint8."""
    canvas = f".cards .panel[data-run='{run}'][data-image='{image}'] canvas"
    address = page.eval_on_selector(canvas, "canvas => canvas.toDataURL()")
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(address.partition(",")[2]))).convert("RGB"))


def choose(page, label, value):
    if label in ("Colours", "Scale"):
        open_display(page)
    page.get_by_label(label, exact=True).select_option(value)


def open_display(page):
    """What is behind the gear: colours, scale, opacity, cells, outlines."""
    if not page.locator(".gear").evaluate("gear => gear.open"):
        page.locator(".gear > summary").click()


def settle(page):
    """Wait until what has been asked for is drawn."""
    page.evaluate("() => new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")


def show_images(page):
    page.get_by_role("button", name="Images", exact=True).click()
    page.wait_for_function("() => document.querySelector('.cards .panel canvas').width > 1")
    page.wait_for_timeout(150)
    settle(page)
