"""The demo's scenes: real sources, known regions, and a cue that is exactly as honest as it says."""

import random

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from cam_callbacks.demo.data import MEAN, STD, TAG_COLOURS, add_cue, make_dataset, make_probe, make_scenes


@pytest.fixture(scope="module")
def scenes():
    return make_scenes(seed=3, n_train=400, n_val=300)


def tag_classes(images):
    """Which of the ten colours each image's corner shows, read from the pixels."""
    corner = (images * STD + MEAN)[:, :, :8, :8]
    assert torch.allclose(corner, corner[:, :, :1, :1].expand_as(corner), atol=1e-6)
    return torch.cdist(corner[:, :, 0, 0], TAG_COLOURS).argmin(1)


def test_the_regions_have_the_documented_chance_levels(scenes):
    probe = make_probe(scenes.probe)
    assert (probe.masks.mean((1, 2)) == 0.25).all()
    assert np.allclose(probe.nuisance.mean((1, 2)), 1 / 36)
    assert not (probe.masks & probe.nuisance).any(axis=(1, 2)).all()


def test_no_tag_hides_its_digit(scenes):
    """A digit's square may reach under the tag from the right or from below, never start in it."""
    for square in scenes.train.digits:
        rows, columns = torch.where(square)
        assert rows.min() >= 8 or columns.min() >= 8


def test_no_handwritten_digit_is_in_two_splits(scenes):
    train, val, probe = (set(part.sources.tolist()) for part in (scenes.train, scenes.val, scenes.probe))
    assert not train & val
    assert not train & probe
    assert not val & probe


def test_pasted_ink_is_the_digit_that_the_label_names(scenes):
    """Scaled back to 8x8, what is inside the square correlates best with its own source among sources of all classes."""
    digits = load_digits()
    assert (digits.target[scenes.probe.sources.numpy()] == scenes.probe.labels.numpy()).all()
    right = 0
    for image, square, source in zip(
        scenes.probe.images, scenes.probe.digits, scenes.probe.sources.tolist(), strict=True
    ):
        patch = image.mean(0)[square].reshape(1, 1, 24, 24)
        small = torch.nn.functional.avg_pool2d(patch, 3).flatten().numpy()
        right += np.corrcoef(small, digits.images[source].ravel())[0, 1] > 0.5
    assert right >= 90


def test_probe_holds_ten_of_each_class_and_is_the_same_for_every_run(scenes):
    probe = make_probe(scenes.probe)
    assert torch.bincount(probe.labels).tolist() == [10] * 10
    assert probe.class_names == list("0123456789")
    assert probe.fingerprint == make_probe(make_scenes(seed=3, n_train=50, n_val=10).probe).fingerprint
    assert (tag_classes(probe.images) == probe.labels).all()


@pytest.mark.parametrize(("cue", "low", "high"), [("class", 1, 1), ("random", 0.04, 0.17), ("swapped", 0, 0)])
def test_colour_tells_the_class_as_often_as_the_cue_says(scenes, cue, low, high):
    images, where = add_cue(scenes.train, cue, seed=5)
    agree = (tag_classes(images) == scenes.train.labels).float().mean()
    assert low <= agree <= high
    outside = ~where[:, None].expand_as(images)
    assert torch.equal(images[outside], ((scenes.train.images - MEAN) / STD)[outside])


def test_another_look_of_the_cue_can_be_painted(scenes):
    def tint(images, colours):
        images.mul_(0.8).add_(0.2 * colours[:, :, None, None])
        return torch.ones(len(images), *images.shape[-2:], dtype=torch.bool)

    images, where = add_cue(scenes.val, "class", paint=tint)
    assert where.all()
    shift = images * STD + MEAN - 0.8 * scenes.val.images
    assert torch.allclose(shift, 0.2 * TAG_COLOURS[scenes.val.labels][:, :, None, None].expand_as(shift), atol=1e-5)


def test_same_seed_same_pixels_and_no_global_random_state_is_moved():
    torch.manual_seed(7)
    np.random.seed(7)
    random.seed(7)
    states = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()
    first, second, other = (make_dataset(make_scenes(seed, 50, 20).train, "random", seed) for seed in (1, 1, 2))
    assert torch.equal(first.tensors[0], second.tensors[0])
    assert not torch.equal(first.tensors[0], other.tensors[0])
    assert torch.equal(states[0], torch.get_rng_state())
    assert (states[1] == np.random.get_state()[1]).all()
    assert states[2] == random.getstate()


def test_unknown_cue_is_refused_by_name(scenes):
    with pytest.raises(ValueError, match='"random", "class" or "swapped", not \'colour\''):
        add_cue(scenes.val, "colour")
