"""Where a YOLOv8n looks that has learned to find squares and discs: the maps of its detections lie on them."""

import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

pytest.importorskip("ultralytics", reason="make test-models runs this in .venv-peers")
from torchvision.ops import box_iou

from cam_engine.detect import explain_detections

sys.path.insert(0, str(Path(__file__).parent))
try:
    import shapes
finally:
    sys.path.pop(0)

pytestmark = [pytest.mark.models, pytest.mark.timeout(1200)]  # the first test trains

SETS = (12345, 1, 2)  # seeds of 64 pictures each that the training did not see


@pytest.fixture(scope="module")
def net():
    return shapes.trained()


@pytest.fixture(scope="module", params=SETS)
def looks(request, net):
    """Pictures with their labels and boxes, and a part for each detection."""
    generator = np.random.default_rng(request.param)
    drawn = [shapes.draw(generator) for _ in range(64)]
    x = torch.from_numpy(np.stack([picture for picture, _, _ in drawn]))
    methods = ["layercam", "hirescam", "eigencam"]
    explained = explain_detections(net, x, methods, per="detection", confidence=0.4)
    return [
        SimpleNamespace(labels=labels, boxes=boxes, **vars(e))
        for (_, labels, boxes), e in zip(drawn, explained, strict=True)
    ]


def test_it_has_learned_to_detect(looks):
    found = right = there = 0
    for look in looks:
        there += len(look.labels)
        found += len(look.detections)
        iou = box_iou(look.detections.boxes, torch.from_numpy(look.boxes))
        agree = look.detections.labels[:, None] == torch.from_numpy(look.labels)[None]
        right += int(((iou > 0.5) & agree).any(1).sum())
    assert there > 60
    assert found >= 0.8 * there and right >= 0.9 * found


@pytest.mark.parametrize("method", ["layercam", "hirescam"])
def test_the_peak_lies_inside_the_explained_box(looks, method):
    inside = []
    for part in (part for look in looks for part in look.parts):
        y, x = np.unravel_index(int(part.heatmaps[method].argmax()), part.heatmaps[method].shape)
        x1, y1, x2, y2 = part.box
        inside.append(x1 <= x + 0.5 <= x2 and y1 <= y + 0.5 <= y2)
    assert len(inside) > 50
    assert np.mean(inside) >= 0.95


def test_eigencam_is_never_on_the_background_side(looks):
    """It knows of no box, but its map is higher on what is there than beside it, in every picture."""
    for look in looks:
        on = np.zeros((shapes.SIZE, shapes.SIZE), dtype=bool)
        for x1, y1, x2, y2 in look.boxes.round().astype(int):
            on[y1:y2, x1:x2] = True
        for part in look.parts:
            heatmap = part.heatmaps["eigencam"].numpy()
            assert heatmap[on].mean() > heatmap[~on].mean()
