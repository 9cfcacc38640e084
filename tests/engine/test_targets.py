"""Which score is explained, and what is said when the targets do not fit."""

from collections import OrderedDict, defaultdict, namedtuple
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch import nn

from cam_engine import CAM
from cam_engine.targets import ClassTarget

LAYER = "stage1"


@pytest.fixture
def cam(cnn):
    return CAM(cnn, "hirescam", LAYER)


def raw(result):
    (maps,) = result.raw.values()
    return maps


def assert_explains(result, expected_scores, expected_maps=None):
    torch.testing.assert_close(result.scores, expected_scores.detach(), rtol=1e-4, atol=1e-5)
    if expected_maps is not None:
        assert expected_maps.max() > 0
        torch.testing.assert_close(raw(result), expected_maps, rtol=1e-3, atol=1e-6)


def test_none_is_the_predicted_class_of_each_image(cam, cnn, photos):
    cnn.head.bias.data += torch.tensor([0.0, 0.2, 0.1, 0.0, 0.15])  # so that the photographs do not all get one class
    logits = cnn(photos)
    predicted = logits.argmax(1)
    result = cam(photos)
    assert_explains(result, logits.amax(1), raw(cam(photos, predicted)))
    torch.testing.assert_close(result.outputs, logits.detach())


def test_an_int_is_one_class_for_all(cam, cnn, photos):
    maps = [raw(cam(photos, c)) for c in range(5)]
    for c in range(5):
        assert_explains(cam(photos, c), cnn(photos)[:, c], maps[c])
    assert all(not torch.allclose(maps[0], other) for other in maps[1:])


CLASSES = [3, 0, 4, 1, 1, 2, 0, 3]


@pytest.mark.parametrize(
    "targets",
    [CLASSES, tuple(CLASSES), torch.tensor(CLASSES), torch.tensor(CLASSES, dtype=torch.int32), np.array(CLASSES),
     np.array(CLASSES, dtype=np.uint8)],
    ids=["list", "tuple", "int64", "int32", "numpy", "uint8"],
)  # fmt: skip
def test_one_class_for_each_image(targets, cam, cnn, photos):
    each = torch.stack([raw(cam(photos[i : i + 1], c))[0] for i, c in enumerate(CLASSES)])
    assert_explains(cam(photos, targets), cnn(photos)[range(8), CLASSES], each)


def test_a_callable_gets_the_outputs_and_says_the_score(cam, cnn, photos):
    def margin(outputs):
        assert outputs.shape == (8, 5)
        return 2 * (outputs[:, 1] - outputs[:, 3])

    logits = cnn(photos)
    assert_explains(cam(photos, margin), 2 * (logits[:, 1] - logits[:, 3]))
    with torch.no_grad():  # the same score as a class of another head
        cnn.head.weight[0] = 2 * (cnn.head.weight[1] - cnn.head.weight[3])
        cnn.head.bias[0] = 2 * (cnn.head.bias[1] - cnn.head.bias[3])
    assert_explains(cam(photos, 0), 2 * (logits[:, 1] - logits[:, 3]), raw(cam(photos, margin)))


def test_class_target_is_the_same_callable(cam, photos):
    assert_explains(cam(photos, ClassTarget(CLASSES)), cam(photos, CLASSES).scores, raw(cam(photos, CLASSES)))


# --- refusals ---


@pytest.mark.parametrize(
    "targets", [[1, 2], [1], [*CLASSES, 1], torch.tensor(CLASSES[:7]), torch.zeros(8, 1, dtype=int), []]
)
def test_targets_for_another_batch_are_refused(targets, cam, photos):
    with pytest.raises((ValueError, TypeError), match="targets="):
        cam(photos, targets)


def test_the_batch_error_says_how_many_are_needed(cam, photos):
    with pytest.raises(ValueError, match=r"batch of 8 images.*exactly 8"):
        cam(photos, [1, 2, 3])


@pytest.mark.parametrize("targets", [5, 99, -1, [0, 1, 2, 3, 4, 5, 0, 0], [0, 0, 0, 0, 0, 0, 0, -1]])
def test_a_class_outside_of_the_model_is_refused(targets, cam, photos):
    with pytest.raises(ValueError, match="classes 0 to 4"):
        cam(photos, targets)


@pytest.mark.parametrize(
    "targets", [1.0, True, "cat", [1.0] * 8, [True] * 8, torch.zeros(8), torch.ones(8, dtype=bool)]
)
def test_targets_that_are_no_integers_are_refused(targets, cam, photos):
    with pytest.raises(TypeError, match="targets="):
        cam(photos, targets)


@pytest.mark.parametrize("targets", [["cat"] * 8, {"class": 1}], ids=["class names", "dictionary"])
def test_targets_of_another_kind_are_refused_in_our_words(targets, cam, photos):
    with pytest.raises(TypeError, match="targets="):
        cam(photos, targets)


@pytest.mark.parametrize(
    ("target", "error", "match"),
    [
        (lambda out: out, ValueError, r"shape \(8, 5\) for 8 images"),
        (lambda out: out[:3, 0], ValueError, r"shape \(3,\) for 8 images"),
        (lambda out: out.sum(), ValueError, r"shape \(\) for 8 images"),
        (lambda out: out[:, 0].tolist(), TypeError, "returned list"),
        (lambda out: None, TypeError, "returned NoneType"),
    ],
)
def test_a_callable_must_return_one_score_for_each_image(target, error, match, cam, photos):
    with pytest.raises(error, match=match):
        cam(photos, target)


# --- outputs that are no tensor ---


Pair = namedtuple("Pair", "features logits")


@dataclass
class Output:
    logits: torch.Tensor
    loss: None = None


class Returns(nn.Module):
    def __init__(self, net, wrap):
        super().__init__()
        self.net, self.wrap = net, wrap

    def forward(self, x):
        return self.wrap(self.net(x))


WRAPS = {
    "dict": (lambda y: {"loss": None, "logits": y}, "logits"),
    "ordered dict": (lambda y: OrderedDict(logits=y), "logits"),
    "dict, key like a method": (lambda y: {"values": y}, "values"),
    "defaultdict": (lambda y: defaultdict(list, logits=y), "logits"),
    "tuple": (lambda y: (y * 0, y), 1),
    "tuple from its end": (lambda y: (y * 0, y), -1),
    "list": (lambda y: [y], 0),
    "namedtuple": (lambda y: Pair(None, y), "logits"),
    "dataclass": (Output, "logits"),
    "callable": (lambda y: {"a": [y]}, lambda out: out["a"][0]),
}


@pytest.mark.parametrize("kind", WRAPS)
def test_output_picks_the_scores(kind, cam, cnn, photos):
    wrap, output = WRAPS[kind]
    result = CAM(Returns(cnn, wrap), "hirescam", f"net.{LAYER}", output=output)(photos, CLASSES)
    plain = cam(photos, CLASSES)
    assert_explains(result, plain.scores, raw(plain))
    assert type(result.outputs) is type(wrap(torch.zeros(1)))


@pytest.mark.parametrize("kind", ["dict", "tuple", "namedtuple", "dataclass"])
def test_an_output_that_is_no_tensor_asks_for_a_callable_target(kind, cnn, photos):
    net = Returns(cnn, WRAPS[kind][0])
    with pytest.raises(TypeError, match=r"targets= as a callable \(outputs\) -> Tensor \(B,\), or output="):
        CAM(net, "hirescam", f"net.{LAYER}")(photos)


def test_a_callable_target_serves_an_output_that_is_no_tensor(cam, cnn, photos):
    net = Returns(cnn, lambda y: {"a": y})
    result = CAM(net, "hirescam", f"net.{LAYER}")(photos, lambda out: out["a"][:, 2])
    assert_explains(result, cam(photos, 2).scores, raw(cam(photos, 2)))


@pytest.mark.parametrize(
    ("kind", "output"), [("dict", "scores"), ("tuple", 2), ("tuple", "logits"), ("dataclass", "x")]
)
def test_an_output_that_is_not_there_is_named(kind, output, cnn, photos):
    with pytest.raises(ValueError, match=f"output={output!r} is not in what the model returned"):
        CAM(Returns(cnn, WRAPS[kind][0]), "hirescam", f"net.{LAYER}", output=output)(photos)


def test_outputs_of_more_dimensions_ask_for_a_callable(cnn, photos):
    net = Returns(cnn, lambda y: y[:, :, None, None])
    with pytest.raises(ValueError, match=r"shape \(8, 5, 1, 1\).*callable"):
        CAM(net, "hirescam", f"net.{LAYER}")(photos, 1)


# --- a head with a single logit ---


@pytest.mark.parametrize("squeeze", [False, True], ids=["(B, 1)", "(B,)"])
def test_a_single_logit_is_the_score_of_class_one_and_against_class_zero(squeeze, make_cnn, photos):
    net = make_cnn(classes=1)
    model = Returns(net, (lambda y: y[:, 0]) if squeeze else (lambda y: y))
    cam = CAM(model, "hirescam", f"net.{LAYER}")
    logit = net(photos)[:, 0]
    for_it, against_it = cam(photos, 1), cam(photos, 0)
    assert_explains(for_it, logit)
    assert_explains(against_it, -logit)
    both = nn.Linear(24, 2)
    with torch.no_grad():
        both.weight[:] = torch.cat([-net.head.weight, net.head.weight])
        both.bias[:] = torch.cat([-net.head.bias, net.head.bias])
    net.head, single = both, net.head
    for c, result in [(1, for_it), (0, against_it)]:
        assert_explains(
            result, CAM(net, "hirescam", LAYER)(photos, c).scores, raw(CAM(net, "hirescam", LAYER)(photos, c))
        )
    net.head = single
    mixed = [0, 1] * 4
    assert_explains(cam(photos, mixed), torch.where(torch.tensor(mixed) == 1, logit, -logit))
    assert_explains(cam(photos), logit)
    with pytest.raises(ValueError, match="classes 0 to 1"):
        cam(photos, 2)


# --- images ---


def test_images_must_be_a_float_batch(cam, photos):
    with pytest.raises(TypeError, match="Tensor"):
        cam(photos.numpy())
    with pytest.raises(TypeError, match=r"uint8.*255"):
        cam(torch.zeros(2, 3, 48, 48, dtype=torch.uint8))
    with pytest.raises(ValueError, match="B, C, H, W"):
        cam(photos[0])
    with pytest.raises(ValueError, match="at least 1"):
        cam(photos[:0])
