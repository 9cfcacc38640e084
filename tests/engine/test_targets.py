"""Which score is explained, and what is said when the targets do not fit."""

from collections import OrderedDict, defaultdict, namedtuple
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch import nn

from cam_engine import CAM
from cam_engine.targets import ClassTarget, MaskTarget, MultiLabelTarget, RegressionTarget, SimilarityTarget

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


# --- what is said of a class ---


def formula(of, logits, index):
    """For one image, in plain Python numbers."""
    z = [float(v) for v in logits]
    if of == "logit":
        return z[index]
    if of == "margin":
        return z[index] - max(v for k, v in enumerate(z) if k != index)
    total = sum(np.exp(np.longdouble(v)) for v in z)
    probability = np.exp(np.longdouble(z[index])) / total
    return float(probability if of == "probability" else np.log(probability))


QUANTITIES = ["logit", "probability", "log_probability", "margin"]


@pytest.mark.parametrize("of", QUANTITIES)
@pytest.mark.parametrize("classes", [None, 3, CLASSES], ids=["predicted", "one", "each"])
def test_quantities_of_a_class(of, classes, cam, cnn, photos):
    with torch.no_grad():
        cnn.head.weight *= 20  # so that the quantities differ
    logits = cnn(photos).detach()
    index = {None: logits.argmax(1).tolist(), 3: [3] * 8}.get(classes if not isinstance(classes, list) else 0, CLASSES)
    result = cam(photos, ClassTarget(classes, of=of))
    expected = torch.tensor([formula(of, row, c) for row, c in zip(logits, index, strict=True)])
    torch.testing.assert_close(result.scores, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("of", QUANTITIES)
@pytest.mark.parametrize("squeeze", [False, True])
def test_quantities_of_a_single_logit_are_those_of_two_classes(of, squeeze):
    logit = torch.tensor([[-3.0], [0.5], [2.0], [40.0]])
    two = torch.cat([torch.zeros_like(logit), logit], 1)
    classes = [0, 1, 0, 1]
    found = ClassTarget(classes, of=of)(logit[:, 0] if squeeze else logit)
    if of == "logit":
        torch.testing.assert_close(found, torch.tensor([3.0, 0.5, -2.0, 40.0]))
    else:
        torch.testing.assert_close(found, ClassTarget(classes, of=of)(two))


def test_a_margin_counts_the_runner_up_and_its_gradient():
    logits = torch.tensor([[1.0, 4.0, 3.0], [5.0, 2.0, 0.0]], requires_grad=True)
    margin = ClassTarget(None, of="margin")(logits)
    assert margin.tolist() == [1.0, 3.0]
    (gradient,) = torch.autograd.grad(margin.sum(), logits)
    assert gradient.tolist() == [[0, 1, -1], [1, -1, 0]]
    assert ClassTarget(2, of="margin")(logits).tolist() == [-1.0, -5.0]


def test_log_probability_of_a_hopeless_class_is_finite():
    logits = torch.tensor([[0.0, 500.0]])
    assert ClassTarget(0, of="log_probability")(logits).tolist() == [-500.0]
    assert ClassTarget(0, of="log_probability")(torch.tensor([[500.0]])).tolist() == [-500.0]


@pytest.mark.parametrize("of", QUANTITIES)
def test_a_prediction_once_settled_stays(of):
    first, later = torch.tensor([[1.0, 3.0, 2.0]]), torch.tensor([[5.0, 0.0, 1.0]])
    settled = ClassTarget(None, of=of).fixed(first)
    assert settled(later).tolist() == ClassTarget(1, of=of)(later).tolist()


def test_an_unknown_quantity_is_refused():
    with pytest.raises(ValueError, match="of='odds' is none of logit, probability, log_probability, margin"):
        ClassTarget(1, of="odds")


# --- several classes, values, embeddings ---


def test_several_classes_are_summed(cam, cnn, photos):
    logits = cnn(photos).detach()
    assert_explains(cam(photos, MultiLabelTarget([0, 3])), logits[:, 0] + logits[:, 3])
    each = [[0, 3], [], [1], [4, 2, 1], [0], [2], [3], [0, 1, 2, 3, 4]]
    expected = torch.stack([sum((row[c] for c in own), torch.zeros(())) for row, own in zip(logits, each, strict=True)])
    result = cam(photos, MultiLabelTarget(each))
    assert_explains(result, expected)
    assert result.scores[1] == 0
    assert result.valid["hirescam"].tolist()[1] is False
    mask = torch.tensor([[c in own for c in range(5)] for own in each])
    assert_explains(cam(photos, MultiLabelTarget(mask)), expected, raw(result))


def test_the_classes_that_are_predicted_are_those_above_zero():
    logits = torch.tensor([[1.0, -2.0, 3.0], [-1.0, -1.0, -1.0]])
    target = MultiLabelTarget()
    assert target(logits).tolist() == [4.0, 0.0]
    assert target.fixed(logits)(torch.tensor([[-5.0, 9.0, 1.0], [7.0, 7.0, 7.0]])).tolist() == [-4.0, 0.0]


@pytest.mark.parametrize(
    ("classes", "error", "match"),
    [([5], ValueError, "classes 0 to 4"), ([-1], ValueError, "classes 0 to 4"), ([[1], [2]], ValueError, "2 images"),
     ([1.5], TypeError, "integers"), ([True], TypeError, "integers"), (torch.ones(8, 4, dtype=bool), ValueError, "mask")],
)  # fmt: skip
def test_several_classes_that_do_not_fit(classes, error, match, cam, photos):
    with pytest.raises(error, match=match):
        cam(photos, MultiLabelTarget(classes))


def test_a_predicted_value_is_explained_as_it_is(cam, cnn, make_cnn, photos):
    assert_explains(cam(photos, RegressionTarget(2)), cnn(photos)[:, 2], raw(cam(photos, 2)))
    single = make_cnn(classes=1)
    for model in (single, Returns(single, lambda y: y[:, 0])):
        layer = LAYER if model is single else f"net.{LAYER}"
        assert_explains(CAM(model, "hirescam", layer)(photos, RegressionTarget()), single(photos)[:, 0])
    with pytest.raises(ValueError, match="index=5 is not one of the 5 values"):
        cam(photos, RegressionTarget(5))


def test_similarity_is_the_cosine(cam, cnn, photos):
    outputs = cnn(photos).detach().double().numpy()
    for embedding in (torch.randn(5), torch.randn(8, 5)):
        e = np.broadcast_to(embedding.double().numpy(), outputs.shape)
        cosine = (outputs * e).sum(1) / np.linalg.norm(outputs, axis=1) / np.linalg.norm(e, axis=1)
        assert_explains(cam(photos, SimilarityTarget(embedding)), torch.tensor(cosine).float())
    itself = cam(photos, SimilarityTarget(cnn(photos)))
    torch.testing.assert_close(itself.scores, torch.ones(8))
    assert SimilarityTarget(torch.zeros(5))(torch.ones(2, 5)).tolist() == [0, 0]
    for wrong in (torch.randn(4), torch.randn(3, 5), torch.randn(1, 1, 5)):
        with pytest.raises(ValueError, match=r"embedding= has shape .*\(5,\) for all images or \(8, 5\)"):
            cam(photos, SimilarityTarget(wrong))


# --- masks ---


@pytest.fixture
def dense():
    """Segmentation scores (3, 4, 6, 8) with a gradient."""
    return torch.randn(3, 4, 6, 8, generator=torch.Generator().manual_seed(0)).requires_grad_()


def test_the_mean_score_inside_a_mask(dense):
    masks = torch.zeros(3, 6, 8, dtype=torch.bool)
    masks[0, 1:3, 2:7], masks[1, 5, 7], masks[2] = True, True, True
    found = MaskTarget([2, 0, 3], masks)(dense)
    expected = torch.stack([dense[0, 2, 1:3, 2:7].mean(), dense[1, 0, 5, 7], dense[2, 3].mean()])
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(MaskTarget(1, masks[0])(dense), dense[:, 1, 1:3, 2:7].mean((1, 2)))


def test_without_masks_it_is_where_the_model_predicts_the_class(dense):
    for classes in (1, [0, 1, 2]):
        index = [classes] * 3 if isinstance(classes, int) else classes
        expected = []
        for scores, c in zip(dense, index, strict=True):
            inside = [scores[c, i, j] for i in range(6) for j in range(8) if scores[:, i, j].argmax() == c]
            expected.append(torch.stack(inside).mean())
        torch.testing.assert_close(MaskTarget(classes)(dense), torch.stack(expected))
        settled = MaskTarget(classes).fixed(dense)
        changed = dense.detach().flip(1)
        expected = [changed[k, c][dense[k].argmax(0) == c].mean() for k, c in enumerate(index)]
        torch.testing.assert_close(settled(changed), torch.stack(expected))


def test_a_class_of_a_segmenter_is_explained_inside_its_predicted_mask(dense, photos):
    torch.testing.assert_close(ClassTarget(2)(dense), MaskTarget(2)(dense))
    torch.testing.assert_close(ClassTarget([0, 1, 2])(dense), MaskTarget([0, 1, 2])(dense))
    changed = dense.detach().flip(1)
    torch.testing.assert_close(ClassTarget(2).fixed(dense)(changed), MaskTarget(2).fixed(dense)(changed))
    net = nn.Sequential(nn.Conv2d(3, 6, 3, padding=1), nn.ReLU(), nn.Conv2d(6, 4, 1)).eval()
    scores = CAM(net, "gradcam", "1")(photos, 2).scores
    torch.testing.assert_close(scores, MaskTarget(2)(net(photos)).detach())
    for target, outputs in ((None, dense), (1, torch.zeros(3, 4, 1, 1))):
        with pytest.raises(ValueError, match="of a segmenter"):
            ClassTarget(target)(outputs)
    with pytest.raises(ValueError, match=r"not \(B, classes\)"):
        ClassTarget(1, of="margin")(dense)


def test_an_empty_mask_has_no_score_no_gradient_and_no_nan(dense):
    masks = torch.ones(3, 6, 8, dtype=torch.bool)
    masks[1] = False
    with torch.no_grad():
        dense[0, 2, 0, 0], masks[0, 0, 0] = torch.inf, False  # an infinite score outside does not reach in either
    found = MaskTarget(2, masks)(dense)
    assert found[1] == 0 and torch.isfinite(found).all()
    (gradient,) = torch.autograd.grad(found.sum(), dense)
    assert torch.isfinite(gradient).all()
    assert not gradient[1].any() and gradient[2, 2].bool().all() and not gradient[2, 0].any()


def test_a_mask_of_the_images_size_is_averaged_down(dense):
    masks = torch.zeros(3, 12, 16)
    masks[:, 0, 0], masks[:, 2:4, 2:4] = 1, 1  # a quarter of cell (0, 0) and all of cell (1, 1)
    expected = (0.25 * dense[:, 1, 0, 0] + dense[:, 1, 1, 1]) / 1.25
    torch.testing.assert_close(MaskTarget(1, masks)(dense), expected)


def test_one_channel_is_one_class_and_its_opposite():
    scores = torch.tensor([[[[2.0, -1.0], [4.0, -3.0]]]]).repeat(2, 1, 1, 1)
    assert MaskTarget([1, 0])(scores).tolist() == [3.0, 2.0]


def test_masks_that_do_not_fit_are_refused(dense):
    with pytest.raises(ValueError, match=r"\(2, 6, 8\) for 3 images"):
        MaskTarget(1, torch.ones(2, 6, 8))(dense)
    with pytest.raises(ValueError, match="classes 0 to 3"):
        MaskTarget(4)(dense)
    with pytest.raises(TypeError, match=r"\(2, 5\).*output="):
        MaskTarget(1)(torch.zeros(2, 5))
    with pytest.raises(TypeError, match="needs classes="):
        MaskTarget(None)


def test_a_mask_says_which_pixels_the_map_explains(photos):
    net = nn.Sequential(nn.Conv2d(3, 6, 3, padding=1), nn.ReLU(), nn.Conv2d(6, 4, 1)).eval()
    masks = torch.zeros(8, 48, 48, dtype=torch.bool)
    masks[:, 10:20, 30:40] = True
    maps = CAM(net, "hirescam", "1")(photos, MaskTarget(2, masks)).raw["hirescam", "1"]
    assert maps[:, 10:20, 30:40].sum() > 0
    assert not maps[~masks].any()


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
