"""Photographs that come with scikit-image, with a box drawn by hand around what each shows."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

IMAGENET = {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}


@dataclass(frozen=True)
class Photograph:
    """``box``: (x1, y1, x2, y2) in pixels of the photograph. ``top``: ImageNet classes that are a right answer. ``target``: the
    class that is explained; None for the predicted one."""

    file: str
    box: tuple[int, int, int, int]
    top: tuple[int, ...]
    target: int | None = None

    def path(self) -> Path:
        import skimage.data

        return Path(skimage.data.__file__).parent / self.file

    def image(self) -> Image.Image:
        return Image.open(self.path()).convert("RGB")

    def holds_peak(self, heatmap: np.ndarray) -> bool:
        y, x = np.unravel_index(int(heatmap.argmax()), heatmap.shape)
        x1, y1, x2, y2 = self.box
        return x1 <= x < x2 and y1 <= y < y2


PHOTOGRAPHS = {
    "cat": Photograph("chelsea.png", (35, 0, 366, 300), (281, 282, 285)),  # its head
    "cup": Photograph("coffee.png", (172, 18, 410, 286), (504, 967)),  # without its saucer
    # "drilling platform" comes first by both networks, for the towers; the shuttle is what the rocket is nearest to.
    "rocket": Photograph("rocket.jpg", (255, 90, 390, 427), (540, 744, 657, 812), 812),  # with its pad
}
