import numpy as np
import pytest
import torch
from PIL import Image

from cam_engine.geometry import Geometry, letterbox, measured


def tensor_of(picture):
    return torch.from_numpy(np.array(picture)).permute(2, 0, 1).float() / 255


@pytest.fixture
def spot():
    """A black picture of 120×200 with one white square, rows 20 to 40, columns 150 to 180."""
    pixels = np.zeros((120, 200, 3), np.uint8)
    pixels[20:40, 150:180] = 255
    return Image.fromarray(pixels)


def squash(picture):
    return tensor_of(picture.resize((64, 96)))


def crop(picture):
    return (tensor_of(picture.resize((160, 96)).crop((40, 0, 136, 96))) - 0.45) / 0.22


def mirror(picture):
    return tensor_of(picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT).resize((100, 60)))


def corner(picture):
    canvas = Image.new("RGB", (128, 128), (114, 114, 114))
    canvas.paste(picture.resize((128, 77)), (0, 0))
    return tensor_of(canvas)


@pytest.mark.parametrize("preprocess", [squash, crop, mirror, corner])
def test_what_a_preprocessing_does_is_measured_and_undone(spot, preprocess):
    tensor, geometry = measured(preprocess)(spot)
    grey = tensor[0].mean(0)
    heatmap = geometry.heatmap(((grey - grey.min()) / (grey.max() - grey.min())).numpy())
    assert heatmap.shape == (120, 200)
    inside = heatmap[22:38, 153:177] if preprocess is not crop else heatmap[22:38, 153:169]
    assert inside.min() > 0.9
    if preprocess is crop:  # cut off: the model saw nothing there
        assert heatmap[:, 172:].max() == 0 and heatmap[:, :48].max() == 0
    y, x = np.argwhere(grey.numpy() > 0.95 * float(grey.max())).T
    x1, y1, x2, y2 = geometry.box((x.min(), y.min(), x.max() + 1, y.max() + 1))
    right = 170 if preprocess is crop else 180
    np.testing.assert_allclose((x1, y1, x2, y2), (150, 20, right, 40), atol=3.5)


def test_a_letterbox_is_undone_exactly(spot):
    boxed, geometry = letterbox(spot, (320, 320), 32)
    assert boxed.size == (320, 192)
    assert geometry.box((0, 0, 320, 192)) == (0, 0, 200, 120)
    grey = np.asarray(boxed)[:, :, 0] / 255
    back = geometry.heatmap(grey)
    assert back[23:37, 153:177].min() > 0.98 and back[60:].max() == 0


def test_a_preprocessing_that_no_line_describes_counts_as_stretching():
    def shuffled(picture):
        return tensor_of(picture.resize((40, 40)))[:, torch.randperm(40, generator=torch.Generator().manual_seed(0))]

    _, geometry = measured(shuffled)(Image.new("RGB", (80, 60)))
    assert geometry == Geometry.stretched((60, 80), (40, 40))


def test_a_preprocessing_must_return_one_image(spot):
    with pytest.raises(TypeError, match="not ndarray"):
        measured(lambda picture: np.zeros(3))(spot)
    with pytest.raises(ValueError, match=r"\(1, C, H, W\)"):
        measured(lambda picture: torch.zeros(2, 3, 4, 4))(spot)
