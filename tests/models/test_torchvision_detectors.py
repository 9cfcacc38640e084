"""torchvision's own matters: mask logits of Mask R-CNN, and batches that are padded inside the model."""

import numpy as np
import pytest
import torch
from detector_zoo import CASES, built, detect, images, two_stage, watching
from PIL import Image
from torch import nn

from cam_engine import CAM, explain
from cam_engine.detect import explain_detections, family_of

pytestmark = pytest.mark.models


def test_masks_of_mask_rcnn():
    torch.manual_seed(0)
    net = two_stage("MaskRCNN")()
    x = images()
    family, outputs, (found,) = detect(CASES["Faster R-CNN"], net, x)
    logits, inside = family.masks(outputs, 0, found.select([3]))
    with torch.no_grad():
        probabilities = watching("roi_heads.mask_predictor")(net, x)[3, found.labels[3]]
    torch.testing.assert_close(logits[0].detach(), probabilities, rtol=1e-3, atol=1e-4)
    assert torch.equal(inside, logits > 0)
    (result,) = explain_detections(net, x, "layercam", items="mask", per="detection", confidence=0.0, max_detections=2)
    assert all(part.valid["layercam"] for part in result.parts)


def test_a_padded_batch_is_cut_back_to_the_image():
    """torchvision enlarges 150 × 200 to 160 × 213 and pads that to 160 × 224: the last columns of a map are no image."""
    net = built("RetinaNet")
    x = images(size=(150, 200))
    family = family_of(net)
    with torch.no_grad():
        high, wide = family.canvas(family.forward(net, x))
    assert (high, wide) == (1, pytest.approx(224 / 213))
    layer = "backbone.fpn.layer_blocks.0"
    (result,) = explain_detections(net, x, "eigencam", layers=layer, confidence=0.0, max_detections=2)
    whole = CAM(net, "eigencam", layer, forward=family.forward, reshape=lambda maps: maps)(x).raw["eigencam", layer]
    assert whole.shape == (1, 20, 28)
    enlarged = nn.functional.interpolate(whole[None], size=(150, 210), mode="bilinear")[0, 0, :, :200]
    expected = (enlarged - enlarged.min()) / (enlarged.max() - enlarged.min())
    torch.testing.assert_close(result.parts[0].heatmaps["eigencam"], expected, rtol=1e-3, atol=1e-4)
    (nothing,) = explain_detections(net, x, ["eigencam", "gradcam"], layers=layer, confidence=1.1)
    assert nothing.parts == [] and set(nothing.features) == {"eigencam"}
    torch.testing.assert_close(nothing.features["eigencam"], expected, rtol=1e-3, atol=1e-4)
    picture = Image.fromarray((x[0] * 255).round().byte().permute(1, 2, 0).numpy())
    shown = explain(net, picture, "eigencam", layer, confidence=1.1)
    np.testing.assert_allclose(shown["heatmap"], expected, atol=0.02)
    assert "nothing was detected" in shown["message"] and "whatever is detected" in shown["message"]
