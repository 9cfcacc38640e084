"""Whom a prediction follows: against a plain loop, without a trace in the model, and on networks that were taught a cue."""

import copy
import random

import numpy as np
import pytest
import scipy.stats
import torch
from scenes import make_scenes, train
from torch import nn

from cam_engine import CAM
from cam_engine.exchange import Followed, draw_pairs, follows, object_share, predicted_classes
from cam_engine.metrics.pooled import ratio_interval

ALL = ("focus", "random", "object", "background", "nuisance", "frame", "detail", "coarse", "spectrum", "colour")


def by_loop(weights, image_of, image_on, part, d, r, given, seed):
    """The class of one mixture of float64 images (C, H, W), by numpy alone; ``given`` as follows() gets it."""
    height, width = image_of.shape[1:]
    if part in ("detail", "coarse"):
        radius = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.fftfreq(width))
        chosen = radius > 0.15 if part == "detail" else radius < 0.1
        mixture = np.fft.ifft2(np.where(chosen, np.fft.fft2(image_of), np.fft.fft2(image_on))).real
    elif part == "spectrum":
        ours, theirs = np.fft.fft2(image_of), np.fft.fft2(image_on)
        mixed = np.abs(ours) * np.exp(1j * np.angle(theirs))
        mixed[:, 0, 0] = ours[:, 0, 0]
        mixture = np.fft.ifft2(mixed).real
    elif part == "colour":
        mean, std = (lambda x: x.mean((1, 2), keepdims=True)), (lambda x: x.std((1, 2), keepdims=True))
        mixture = (image_on - mean(image_on)) / std(image_on) * std(image_of) + mean(image_of)
    else:
        from_donor = np.zeros((height, width), bool)
        if part == "frame":
            from_donor[:] = True
            from_donor[height // 16 : -(height // 16), width // 16 : -(width // 16)] = False
        elif part == "object":
            from_donor = given["masks"][d] | given["masks"][r]
        elif part == "background":
            from_donor = ~(given["masks"][d] | given["masks"][r])
        elif part == "nuisance":
            from_donor = given["nuisance"][d] | given["nuisance"][r]
        else:  # maps as large as the images, so that the highest tenth is a matter of sorting
            for i in (d, r):
                flat = given["maps"]["m"][i].ravel()
                from_donor |= (flat >= np.sort(flat)[-round(0.1 * flat.size)]).reshape(height, width)
            if part == "random":
                shift = np.random.default_rng([seed, d, r]).integers((height, width))
                from_donor = np.roll(from_donor, shift, (0, 1))
        mixture = np.where(from_donor, image_of, image_on)
    return int((weights @ mixture.ravel()).argmax())


def test_follows_is_a_loop_over_pairs():
    rng = np.random.default_rng(0)
    images = rng.normal(size=(10, 2, 16, 32)) + rng.normal(size=(10, 2, 1, 1))
    given = {
        "masks": rng.random((10, 16, 32)) < 0.5,
        "nuisance": rng.random((10, 16, 32)) < 0.2,
        "maps": {"m": rng.random((10, 16, 32))},
    }
    net = nn.Sequential(nn.Flatten(), nn.Linear(1024, 3, bias=False)).double()
    weights = net[1].weight.detach().numpy()
    predictions = (images.reshape(10, -1) @ weights.T).argmax(1)
    found = follows(net, torch.from_numpy(images), predictions, ALL, **given, donors=4, seed=3, batch_size=7)
    pairs = draw_pairs(10, 4, seed=3)
    differ = predictions[pairs[:, 0]] != predictions[pairs[:, 1]]
    assert 10 < differ.sum() < 40
    shares = []
    for part in ALL:
        of = found[f"{part}/m" if part in ("focus", "random") else part]
        expected = np.full(40, -1)
        for i in np.flatnonzero(differ):
            d, r = pairs[i]
            expected[i] = by_loop(weights, images[d], images[r], part, d, r, given, 3)
        np.testing.assert_array_equal(of.predicted, expected, err_msg=part)
        hits = np.where(differ, expected == predictions[pairs[:, 0]], np.nan)
        np.testing.assert_array_equal(of.followed, hits)
        np.testing.assert_array_equal(of.pairs, pairs)
        assert of.share == pytest.approx(np.nanmean(hits)) and of.n == differ.sum()
        assert of.low <= of.share <= of.high
        shares.append(of.share)
    assert len(set(shares)) > 5  # the parts do not all do the same


class Counting(nn.Module):
    """Two logits from the mean; keeps how many images it got at a time."""

    def __init__(self, result=lambda z: torch.stack([-z, z], 1)):
        super().__init__()
        self.norm, self.dropout, self.result, self.batches = nn.BatchNorm2d(3), nn.Dropout(), result, []
        self.noise = nn.Parameter(torch.zeros(1))

    def forward(self, images):
        self.batches.append(len(images))
        z = self.dropout(self.norm(images)).mean((1, 2, 3)) + 0 * torch.rand(1) + self.noise
        return self.result(z)


def bright_and_dark(n=12):
    images = torch.randn(n, 3, 16, 16) * 0.1
    return images + torch.where(torch.arange(n) % 2 == 0, -1.0, 1.0)[:, None, None, None]


@pytest.mark.parametrize(("batch_size", "batches"), [(1000, [40]), (16, [16, 16, 8])])
def test_the_mixtures_of_all_parts_share_batches(batch_size, batches):
    net, images = Counting(), bright_and_dark(10)
    predictions = torch.arange(10) % 2
    result = follows(net, images, predictions, ["colour", "frame"], labels=predictions, donors=2, batch_size=batch_size)
    assert net.batches == batches
    assert result["colour"].share == 1 and result["frame"].share == 0 and result["frame"].n == 20
    assert result["frame"].receivers == 10


def test_the_model_and_the_random_streams_are_left_alone():
    net, images = Counting().train(), bright_and_dark()
    net(images).sum().backward()
    before = copy.deepcopy(net.state_dict())
    streams = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()
    given = images.clone()
    maps = {"m": torch.rand(12, 4, 4, generator=torch.Generator().manual_seed(0))}
    follows(net, images, torch.arange(12) % 2, ["focus", "random", "detail"], maps=maps)
    assert net.training and net.dropout.training and net.noise.grad is not None
    for name, value in net.state_dict().items():
        assert torch.equal(value, before[name]), name
    assert torch.equal(images, given)
    assert torch.equal(torch.get_rng_state(), streams[0]) and random.getstate() == streams[2]
    np.testing.assert_array_equal(np.random.get_state()[1], streams[1])


def test_equal_calls_give_equal_results():
    images = bright_and_dark()
    calls = [follows(Counting(), images, torch.arange(12) % 2, ["detail", "frame"], seed=5) for _ in range(2)]
    for key in ("detail", "frame"):
        np.testing.assert_array_equal(calls[0][key].followed, calls[1][key].followed)
        assert (calls[0][key].low, calls[0][key].high) == (calls[1][key].low, calls[1][key].high)


@pytest.mark.parametrize("result", [lambda z: z, lambda z: z[:, None], lambda z: torch.stack([-z, z], 1)])
def test_one_logit_is_read_by_its_sign(result):
    found = follows(Counting(result), bright_and_dark(), torch.arange(12) % 2, ["colour"])
    assert found["colour"].share == 1 and set(found["colour"].predicted) == {-1, 0, 1}


def test_output_and_forward_reach_other_models():
    net = Counting(lambda z: {"logits": torch.stack([-z, z], 1)})
    images, predictions = bright_and_dark(), torch.arange(12) % 2
    with pytest.raises(TypeError, match=r"one class that a classifier predicts.*not dict.*output="):
        follows(net, images, predictions, ["colour"])
    assert follows(net, images, predictions, ["colour"], output=lambda out: out["logits"])["colour"].share == 1
    assert follows(net, images, predictions, ["colour"], forward=lambda m, x: m(x)["logits"])["colour"].share == 1


@pytest.mark.parametrize("outputs", [torch.zeros(2, 3, 4, 4), [torch.zeros(2, 3)], torch.tensor(1.0), None])
def test_outputs_without_one_class_an_image_are_a_type_error(outputs):
    with pytest.raises(TypeError, match="scores \\(N, classes\\) or one logit"):
        predicted_classes(outputs)


def test_nan_predicts_nothing():
    scores = torch.tensor([[0.0, 1.0], [float("nan"), 3.0], [-float("inf"), -5.0]])
    assert predicted_classes(scores).tolist() == [1, -1, 1]
    net = Counting(lambda z: torch.stack([z * float("nan"), z], 1))
    found = follows(net, bright_and_dark(), torch.arange(12) % 2, ["frame"])["frame"]
    assert found.n == 0 and np.isnan([found.share, found.low, found.high]).all() and np.isnan(found.followed).all()
    left_out = follows(Counting(), bright_and_dark(), [-1, *[0, 1] * 5, 0], ["frame"])["frame"]
    assert np.isnan(left_out.followed[(left_out.pairs == 0).any(1)]).all() and left_out.n > 0


def test_a_model_that_names_one_class_only_is_not_judged():
    net = Counting()
    found = follows(net, bright_and_dark(), [1] * 12, ["frame", "detail"])
    assert net.batches == [] and all(of.n == 0 and np.isnan(of.share) for of in found.values())
    nothing = object_share(found["frame"], found["detail"])
    assert nothing.n == 0 and np.isnan([nothing.share, nothing.low, nothing.high]).all()


def test_a_half_precision_model_is_asked_in_its_own_precision():
    assert (
        follows(Counting().bfloat16(), bright_and_dark(), torch.arange(12) % 2, ["colour", "detail"])["colour"].share
        == 1
    )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"predictions": [0, 1]}, r"predictions= has shape \(2,\).*12 images"),
        ({"images": torch.zeros(12, 3, 16, 16, dtype=torch.uint8)}, "float"),
        ({"pairs": [0, 1]}, r"pairs= has shape \(2,\)"),
    ],
)
def test_inputs_of_the_wrong_shape_are_refused(changes, message):
    given = {"images": bright_and_dark(), "predictions": [0, 1] * 6, "parts": ["frame"]} | changes
    with pytest.raises(ValueError, match=message):
        follows(Counting(), **given)


# --- shares and their intervals ---


def made_up(followed, pairs):
    of = np.asarray(followed, dtype=np.float64)
    return Followed("object", pairs, of, np.where(np.isnan(of), -1, 0), 0.0, 0.0, 0.0, int(np.isfinite(of).sum()))


def test_object_share_is_a_ratio_of_sums_bootstrapped_over_receivers():
    rng, pairs = np.random.default_rng(1), draw_pairs(40, 3)
    of = rng.choice([0.0, 1.0, np.nan], 120, p=[0.3, 0.6, 0.1])
    on = rng.choice([0.0, 1.0], 120, p=[0.7, 0.3])
    got = object_share(made_up(of, pairs), made_up(on, pairs))
    both = np.isfinite(of)
    assert got.n == both.sum()
    assert got.share == pytest.approx(of[both].sum() / (of[both].sum() + on[both].sum()))
    a, b = ([x[(pairs[:, 1] == r) & both].sum() for r in range(40)] for x in (of, on))
    peer = scipy.stats.bootstrap(
        (a, b), lambda x, y, axis: x.sum(axis) / (x.sum(axis) + y.sum(axis)), paired=True, method="percentile",
        n_resamples=20_000, vectorized=True, rng=np.random.default_rng(2),
    ).confidence_interval  # fmt: skip
    assert (got.low, got.high) == pytest.approx((peer.low, peer.high), abs=0.02)
    assert got.high - got.low > 0.1


def test_shares_of_different_pairs_are_not_mixed():
    with pytest.raises(ValueError, match="different pairs"):
        object_share(made_up(np.ones(8), draw_pairs(4, 2)), made_up(np.ones(8), draw_pairs(4, 2, seed=1)))


def test_donors_of_one_receiver_are_not_counted_as_independent():
    """Four receivers whose three donors agree have an interval as wide as four images, not twelve."""
    pairs = np.stack([np.zeros(12, int), np.repeat(np.arange(4), 3)], 1)
    _, low, high = ratio_interval([3, 3, 0, 0], [3, 3, 3, 3])
    assert (low, high) == (0.0, 1.0)
    got = object_share(made_up(np.repeat([1.0, 1, 0, 0], 3), pairs), made_up(np.repeat([0.0, 0, 1, 1], 3), pairs))
    assert (got.share, got.low, got.high) == (0.5, 0.0, 1.0)


# --- networks that were taught a cue, and one that was not ---


@pytest.fixture(scope="module", params=[False, True], ids=["no cue", "corner tag"])
def taught(request):
    """(cue, what the prediction follows on 48 images of its own kind)."""
    cue = request.param  # learned from a few images
    net, probe = train(cue, n=640 if cue else 1280), make_scenes(48, 5, cue)
    result = CAM(net, "gradcam", "last")(probe.images, probe.labels)
    predictions = predicted_classes(CAM(net, "gradcam", "last")(probe.images, outputs=True).outputs)
    given = {"masks": probe.masks, "nuisance": probe.tags, "maps": {"gradcam": result.raw["gradcam", "last"]}}
    return cue, follows(net, probe.images, predictions, ALL, labels=probe.labels, **given)


def test_object_share_tells_who_decides(taught):
    cue, found = taught
    share = object_share(found["object"], found["background"])
    assert share.n > 100
    if cue:
        assert share.high < 0.2 and found["nuisance"].low > 0.8 and found["background"].share > 0.8
    else:
        assert share.low > 0.5 and found["nuisance"].high < 0.1 and found["frame"].high < 0.2


def test_focus_against_random_tells_whether_the_map_shows_what_decides(taught):
    cue, found = taught
    focus, moved = found["focus/gradcam"], found["random/gradcam"]
    if cue:  # on a grid of 4×4 GradCAM points beside the tag
        assert focus.high < moved.low + 0.05
    else:
        assert focus.low > moved.high


def test_mixtures_keep_the_other_inputs_of_their_receivers():
    """A model that adds what else belongs to an image: a mixture is scored with its receiver's."""
    images = torch.rand(6, 1, 8, 8)
    beside = torch.arange(6)
    asked = []

    def receiving(rows):
        asked.extend(rows)

        def forward(model, mixtures):
            assert len(mixtures) == len(rows)
            return torch.nn.functional.one_hot(beside[rows], 6).float()

        return forward

    net = torch.nn.Flatten()
    of = follows(net, images, range(6), ["frame", "colour"], batch_size=4, receiving=receiving)
    for result in of.values():
        assert result.predicted.tolist() == result.pairs[:, 1].tolist()
    assert len(asked) == sum(result.n for result in of.values())
