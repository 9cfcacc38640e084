"""docs/gallery.md and its pictures: every method on three photographs, by a network with ImageNet weights.

    .venv-peers/bin/python scripts/gallery.py

Weights and photographs come with Python packages (requirements-weights.txt, scikit-image); nothing is downloaded.
"""

import argparse
import sys
from pathlib import Path

import numpy as np
import torch
from PIL import Image

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT / "benchmarks"), str(ROOT / "tests" / "models")]

import eigen_sign  # noqa: E402
from photographs import PHOTOGRAPHS  # noqa: E402

from cam_engine import available_methods, explain  # noqa: E402
from cam_engine.explanation.naming import ExplainedClass  # noqa: E402
from cam_engine.render import Tile, contact_sheet  # noqa: E402

SLOW = ("scorecam", "exchangecam")
LAYER, LAYER_OF_SLOW = "features.18", "features.17"

PAGE = """# Gallery

Every method on three photographs: torchvision's MobileNetV2 with ImageNet weights, its own preprocessing, layer `{layer}` (of
{slow} `{layer_of_slow}`, which has 320 channels in place of 1280). Made by `python scripts/gallery.py`.

{pictures}
## What to see

- The network saw the middle of each photograph; what is hatched it never saw, and no map says anything about it.
- The grid is 7×7: a cell is 37 pixels of the cat, and a map cannot be finer than that. `fullgrad` works at the pixels.
- Behind global pooling and one linear layer `gradcam`, `xgradcam`, `hirescam`, `shapleycam` and `cam` are one map, as they must be.
- On the rocket the class explained is the second best, after "drilling platform" with 35 %; `target="space shuttle"` asks for it.
- `eigencam`, `kpcacam` and `fem` ask for no class: they show what stands out in the layer.
- `finercam` shows what tells a class from those next to it, which may be a small part of the object.
- `randomcam` is the floor: random weights of the same channels. On the cat it lies on the cat too, as anything would there: a map
  that looks right proves little. `cam-callbacks sanity` and the exchange tests ask further.
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, default=ROOT / "docs")
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    net = dict(eigen_sign.pretrained())["MobileNetV2"]
    pictures = []
    for what, photo in PHOTOGRAPHS.items():
        file = f"gallery-{what}.jpg"
        title, sheet = sheet_of(net, photo)
        Image.fromarray(sheet).save(given.folder / file, quality=88)
        pictures.append(f"## {title}\n\n![every method on the {what}]({file})\n")
        print(file, title, flush=True)
    slow = ", ".join(f"`{name}`" for name in SLOW)
    page = PAGE.format(layer=LAYER, layer_of_slow=LAYER_OF_SLOW, slow=slow, pictures="\n".join(pictures))
    (given.folder / "gallery.md").write_text(page, encoding="utf-8")


def sheet_of(net, photo):
    """Title and sheet of all methods, in the order of ``available_methods()``, behind the photograph."""
    quick = [name for name in available_methods() if name not in SLOW]
    settings = {"target": photo.target, "caption": False}
    found = explain(net, photo.path(), quick, LAYER, **settings)
    maps = dict(found["methods"]) | dict(explain(net, photo.path(), list(SLOW), LAYER_OF_SLOW, **settings)["methods"])
    pixels = np.asarray(found["original_image"])
    tiles = [Tile(pixels, None, ("photograph",))]
    for name in available_methods():
        tiles.append(Tile(pixels, maps[name]["heatmap"], (name,), focus=True, seen=found["seen"]))
    title = ExplainedClass(found["class_index"], found["class_name"], found["probability"]).words()
    return title, contact_sheet(tiles, title=title, columns=4, tile_size=300)


if __name__ == "__main__":
    main()
