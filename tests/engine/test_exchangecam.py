"""ExchangeCAM: against a plain loop over windows, and on a network whose evidence lies where a coarse map cannot point."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scenes import make_scenes, train
from torch import nn

from cam_engine import CAM
from cam_engine.exchange import follows, predicted_classes
from cam_engine.exchange.mixtures import focus_region


def by_loop(evidence, images, cells, seed=0):
    """The map of each of the float64 images (B, C, H, W); ``evidence(image, index)`` is a number."""
    batch, _, height, width = images.shape
    starts = [(i, j) for i in range(cells[0] - 2) for j in range(cells[1] - 2)]
    drawn = torch.randint(1, max(batch, 2), (len(starts),), generator=torch.Generator().manual_seed(seed)).tolist()
    edges = [[-(-k * size // n) for k in range(n + 1)] for size, n in zip((height, width), cells, strict=True)]
    maps = np.zeros((batch, *cells))
    for b, image in enumerate(images):
        falls = [[[] for _ in range(cells[1])] for _ in range(cells[0])]
        for (i, j), step in zip(starts, drawn, strict=True):
            lender = images[(b + step) % batch] if batch > 1 else np.roll(image, (height // 2, width // 2), (1, 2))
            window = (slice(None), slice(edges[0][i], edges[0][i + 3]), slice(edges[1][j], edges[1][j + 3]))
            changed = image.copy()
            changed[window] = lender[window]
            fall = evidence(image, b) - evidence(changed, b)
            for y in range(i, i + 3):
                for x in range(j, j + 3):
                    falls[y][x].append(fall)
        maps[b] = [[np.mean(cell) for cell in row] for row in falls]
    return np.maximum(maps, 0)


@pytest.fixture
def net():
    return nn.Sequential(nn.Conv2d(2, 5, 3, padding=1), nn.Tanh(), nn.Flatten(), nn.Linear(5 * 20 * 35, 3)).double()


def images(n, size=(20, 35)):
    return torch.randn(n, 2, *size, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("batch", [1, 2, 3])
def test_it_is_a_loop_over_windows(batch, net):
    given, classes = images(batch), [2, 0, 1][:batch]
    for size in (1, 7, 500):
        raw = CAM(net, "exchangecam", "1", batch_size=size, seed=4)(given, classes).raw["exchangecam", "1"]

        def evidence(image, index):
            with torch.no_grad():
                return float(net(torch.from_numpy(image)[None]).log_softmax(1)[0, classes[index]])

        expected = by_loop(evidence, given.numpy(), (16, 16), seed=4)
        assert raw.shape == (batch, 16, 16) and expected.max() > 0
        np.testing.assert_allclose(raw, expected, atol=1e-9)


def test_images_smaller_than_the_grid_have_a_cell_a_pixel():
    net = nn.Sequential(nn.Conv2d(2, 3, 1), nn.Tanh(), nn.Flatten(), nn.Linear(3 * 9 * 5, 2)).double()
    given = images(2, (9, 5))

    def evidence(image, _):
        with torch.no_grad():
            return float(net(torch.from_numpy(image)[None]).log_softmax(1)[0, 1])

    raw = CAM(net, "exchangecam", "0")(given, 1).raw["exchangecam", "0"]
    np.testing.assert_allclose(raw, by_loop(evidence, given.numpy(), (9, 5)), atol=1e-9)


def test_a_target_that_is_no_class_is_explained_by_its_own_score(net):
    given = images(2)

    def score(outputs):
        return outputs[:, 0] * 3 - outputs[:, 1]

    def evidence(image, _):
        with torch.no_grad():
            return float(score(net(torch.from_numpy(image)[None])))

    raw = CAM(net, "exchangecam", "1")(given, score).raw["exchangecam", "1"]
    np.testing.assert_allclose(raw, by_loop(evidence, given.numpy(), (16, 16)), atol=1e-9)


@pytest.mark.parametrize("label", [0, 1])
def test_one_logit_is_the_log_probability_of_its_side(label):
    net = nn.Sequential(nn.Conv2d(2, 5, 3), nn.Tanh(), nn.Flatten(), nn.Linear(5 * 18 * 33, 1)).double()
    given = images(2)

    def evidence(image, _):
        with torch.no_grad():
            z = net(torch.from_numpy(image)[None])[0, 0]
        return float(F.logsigmoid(z if label else -z))

    raw = CAM(net, "exchangecam", "1")(given, label).raw["exchangecam", "1"]
    np.testing.assert_allclose(raw, by_loop(evidence, given.numpy(), (16, 16)), atol=1e-9)


def test_it_costs_197_forwards_an_image_in_batches(net):
    seen = []
    net.register_forward_pre_hook(lambda _module, inputs: seen.append(len(inputs[0])))
    CAM(net, "exchangecam", "1", batch_size=50)(images(5), 0)
    assert max(seen) == 50 and sum(seen[-20:]) == 5 * 197
    assert CAM(net, "exchangecam", "1")(images(5), 0).outputs.shape == (5, 3)


def test_a_broken_image_spoils_no_other(net):
    given = images(3)
    given[1, 0, 10, 10] = float("nan")
    result = CAM(net, "exchangecam", "1")(given, [2, 0, 1])
    assert result.valid["exchangecam"].tolist() == [True, False, True]


def test_a_model_that_is_sure_whatever_is_exchanged_has_no_map(net):
    with torch.no_grad():
        net[3].weight.mul_(1e-3)
        net[3].bias.copy_(torch.tensor([30.0, 0, 0]))
    assert not CAM(net.float(), "exchangecam", "1")(images(3), 0).valid["exchangecam"].any()


def test_its_strongest_places_carry_the_class_where_a_coarse_grid_misses_them():
    """A tag in the corner of 32×32 pixels, on a last layer of 4×4 cells."""
    net, probe = train(True, n=640), make_scenes(16, 5, True)
    cam = CAM(net, ["gradcam", "exchangecam"], "last", progress=False)
    result = cam(probe.images, probe.labels)
    predictions = predicted_classes(result.outputs)
    carried = {}
    for method in cam.methods:
        strongest = focus_region(result.raw[method, "last"], (32, 32), share=0.03)
        of = follows(net, probe.images, predictions, ["nuisance"], nuisance=strongest, labels=probe.labels)
        carried[method] = of["nuisance"].share
    assert carried["exchangecam"] > carried["gradcam"] + 0.5
