"""Numbers that cost forwards, on a model that scores one quarter of the picture."""

import numpy as np
import pytest
import torch
from made_maps import P

from cam_engine import metrics


class Corner:
    """Confidence is the mean of the top left quarter."""

    def __init__(self):
        self.seen = 0

    def __call__(self, images):
        self.seen += len(images)
        return images[:, :, :8, :8].mean((1, 2, 3)).clamp(0, 1)


@pytest.fixture
def bright():
    return torch.rand(3, 3, 16, 16, generator=torch.Generator().manual_seed(0)) * 0.2 + 0.8


def quarters(right):
    heat = np.zeros((3, 16, 16)) + np.arange(256).reshape(16, 16) * 1e-6
    heat[:, :8, :8] += 1 if right else 0
    heat[:, 8:, 8:] += 0 if right else 1
    return heat / heat.max()


def test_faithfulness_tells_a_right_map_from_a_wrong_one(bright):
    score, right, wrong = Corner(), quarters(True), quarters(False)
    before = score(bright).double().numpy()
    np.testing.assert_allclose(metrics.average_drop(score, bright, right), 1 - right[0, :8, :8].mean(), atol=1e-3)
    assert (metrics.average_drop(score, bright, wrong) > 0.99).all()
    assert not metrics.confidence_increase(score, bright, right).any()
    # A quarter of the pixels carries the score: linear over a quarter of the way, then level.
    np.testing.assert_allclose(metrics.deletion(score, bright, right, 64), before / 8, rtol=0.02)
    np.testing.assert_allclose(metrics.deletion(score, bright, wrong, 64), before * 0.62, rtol=0.25)
    assert (metrics.insertion(score, bright, right) >= metrics.insertion(score, bright, wrong) - 0.01).all()
    unusable = right.copy()
    unusable[1] = np.nan
    for name in ("average_drop", "confidence_increase", "insertion", "deletion", "road"):
        found = getattr(metrics, name)(score, bright, unusable)
        assert np.isnan(found).tolist() == [False, True, False], name


def test_road_is_seeded_and_prefers_the_right_map():
    cue = torch.zeros(2, 1, 16, 16)
    cue[:, :, 2:6, 2:6] = 1.0  # a bright spot in the corner that is scored
    right, wrong = (np.repeat(h[:1], 2, 0) for h in (cue[:, 0].numpy() + 0.0, quarters(False)))
    right = right + np.random.default_rng(0).random(right.shape) * 1e-3
    first = metrics.road(Corner(), cue, right, percentiles=(80, 90))
    np.testing.assert_array_equal(first, metrics.road(Corner(), cue, right, percentiles=(80, 90)))
    assert (first > 0.1).all() and (first > 2 * metrics.road(Corner(), cue, wrong, percentiles=(80, 90))).all()


def test_heatmaps_are_the_pictures_of_maps():
    broken = P.copy()
    broken[3] = 0
    found = metrics.heatmaps(broken, (21, 20))
    assert found.shape == (6, 21, 20) and np.isnan(found).all((1, 2)).tolist() == [False] * 3 + [True] + [False] * 2
    scaled = torch.from_numpy(P[0] / P[0].max())[None, None]
    theirs = torch.nn.functional.interpolate(scaled, (21, 20), mode="bilinear", align_corners=False)[0, 0]
    np.testing.assert_allclose(found[0], theirs, atol=1e-12)
