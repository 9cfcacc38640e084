"""How large the page of ``compare`` is, and how soon a browser shows it and follows the slider.

``python benchmarks/page.py``: 64 images, two methods, 50 epochs, two runs, maps of 14 × 14 cells, in Chromium at 1500 pixels.
"""

from __future__ import annotations

import shutil
import statistics
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from playwright.sync_api import sync_playwright
from sklearn.datasets import load_sample_images

from cam_callbacks.compare import load_run, write_page
from cam_callbacks.compare.run import Run
from cam_callbacks.records import Record, RecordStore

IMAGES, EPOCHS, GRID, SIDE = 64, 50, 14, 224
METHODS = ("eigencam", "gradcam")
METRICS = ("drift_ref", "on_target_enrichment", "nuisance_enrichment", "entropy")

STEP = """async () => {  // from the key to the end of the frame in which all is drawn, in ms
    const slider = document.querySelector(".slider"), took = [];
    for (let i = 0; i < 40; i++) {
        await new Promise(requestAnimationFrame);
        const start = performance.now();
        slider.value = String(i);
        slider.dispatchEvent(new Event("input", { bubbles: true }));
        document.body.offsetHeight;
        took.push(performance.now() - start);
    }
    return took;
}"""
PAINT = "() => performance.getEntriesByName('first-contentful-paint')[0].startTime"


def crops() -> NDArray[np.uint8]:
    """(IMAGES, SIDE, SIDE, 3), each of another place."""
    photographs = load_sample_images().images
    places = [(7 * i % (427 - SIDE), 13 * i % (640 - SIDE)) for i in range(IMAGES)]
    return np.stack([photographs[i % 2][y : y + SIDE, x : x + SIDE] for i, (y, x) in enumerate(places)])


def made_run(folder: Path, name: str, random: np.random.Generator) -> Run:
    """A run whose maps are noise, on crops of scikit-learn's photographs."""
    store = RecordStore(folder)
    masks = np.zeros((IMAGES, SIDE, SIDE), bool)
    masks[:, 60:160, 40:180] = True
    store.write_probe({"pictures": crops(), "labels": np.arange(IMAGES) % 10, "masks": masks})
    probe = {
        "fingerprint": "5f" * 32,
        "n": IMAGES,
        "image_size": [SIDE, SIDE],
        "ids": [f"image {i}" for i in range(IMAGES)],
    }
    store.write_manifest(
        {"run": name, "created": 0.0, "version": "", "model": "", "methods": list(METHODS), "layers": ["layer4"]}
        | {"grids": {"layer4": [GRID, GRID]}, "target": "label", "reference": "settled", "name": None}
        | {"probe": probe, "versions": {}}
    )
    for epoch in range(EPOCHS):
        numbers = {f"{metric}/{method}": random.random(IMAGES) for metric in METRICS for method in METHODS}
        store.write(
            Record(
                look=epoch,
                epoch=epoch,
                step=epoch,
                metrics={f"cam/{key}": float(values.mean()) for key, values in numbers.items()},
                maps={(method, "layer4"): random.random((IMAGES, GRID, GRID), np.float32) for method in METHODS},
                per_image=numbers,
                predictions=random.integers(0, 10, IMAGES),
                confidences=random.random(IMAGES),
            )
        )
    return replace(load_run(str(folder)), name=name)


def main() -> None:
    random = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as temporary, sync_playwright() as playwright:
        runs = [made_run(Path(temporary) / name, name, random) for name in ("first", "second")]
        page = write_page(runs, Path(temporary) / "page.html")
        print(f"size: {page.stat().st_size / 1e6:.1f} MB")
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox", "--disable-gpu"]
        )
        paints, steps = [], []
        for _ in range(3):
            tab = browser.new_page(viewport={"width": 1500, "height": 1000})
            tab.goto(page.as_uri())
            tab.wait_for_selector(".cards .panel")
            tab.get_by_role("button", name="Images", exact=True).click()
            tab.wait_for_timeout(1000)  # until the pictures are decoded
            paints.append(tab.evaluate(PAINT))
            steps += tab.evaluate(STEP)
            tab.close()
        browser.close()
    print(f"first paint: {statistics.median(paints):.0f} ms (median of {len(paints)})")
    print(
        f"a step of the slider: {statistics.median(steps):.1f} ms (median), {max(steps):.1f} ms (slowest of {len(steps)})"
    )


if __name__ == "__main__":
    main()
