"""Every detector family against its own library and plain autograd."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from detector_zoo import CASES, built, detect, drawn, images

from cam_engine import explain
from cam_engine.capture import Tap, capture, gradients
from cam_engine.detect import BoxTarget, explain_detections, family_of

libreyolo = pytest.importorskip("libreyolo")

from ultralytics.nn.tasks import DetectionModel, RTDETRDetectionModel  # noqa: E402

pytestmark = pytest.mark.models


@pytest.fixture(params=CASES)
def case(request):
    return CASES[request.param], built(request.param)


def test_keeps_what_its_own_library_keeps(case):
    case, net = case
    if case.kept is None:
        pytest.skip("this library has no public function for it")
    x = images(size=case.size)
    found = detect(case, net, x)[2][0]
    with torch.no_grad():
        theirs = case.kept(net, x)
    assert len(found) == len(theirs) > 3
    ours = torch.cat([found.boxes, found.scores[:, None], found.labels[:, None]], 1)
    scale = torch.tensor([*[max(case.size)] * 4, 1, 1])
    for row in ours:  # equal scores leave the order open
        assert ((theirs - row) / scale).abs().amax(1).min() < 1e-4


def test_the_exact_row_is_the_row(case):
    case, net = case
    x = images(size=case.size)
    family, outputs, (found,) = detect(case, net, x)
    raw = family.raw(outputs)
    assert len(found) > 3 and len(set(found.rows.tolist())) > 1
    torch.testing.assert_close(raw.boxes[0, found.rows], found.boxes)
    with torch.no_grad():
        native = case.call(net, x)
        expected = [case.logit(native, int(r), int(c)) for r, c in zip(found.rows, found.labels, strict=True)]
    scores = raw.classes[0, found.rows, found.labels]
    torch.testing.assert_close(scores if case.logits else scores.log(), torch.stack(expected), rtol=1e-4, atol=1e-5)


def first_tensor(output):
    return () if isinstance(output, torch.Tensor) else (next(iter(output.keys())),)


def test_the_gradient_is_that_of_plain_autograd(case):
    case, net = case
    x = images(size=case.size)
    family, _, (found,) = detect(case, net, x)
    layers = [net.get_submodule(name) for name in family.layers()]
    target = BoxTarget(found.select([1]), family=family)
    row, label = int(found.rows[1]), int(found.labels[1])
    some = False
    for name, layer in zip(family.layers(), layers, strict=True):
        captured = capture(net, x, [Tap(name, layer, first_tensor)], record="from_layer", forward=family.forward)
        with torch.enable_grad():
            ours = gradients(target(captured.outputs), captured.activations)[name]
        leaf: list[torch.Tensor] = []

        def cut(_module, _inputs, output, leaf=leaf):
            if isinstance(output, torch.Tensor):
                leaf[:] = [output.detach().requires_grad_()]
                return leaf[0]
            leaf[:] = [output[0].detach().requires_grad_()]
            return type(output)(leaf[0])

        handle = layer.register_forward_hook(cut)
        try:
            score = case.logit(case.call(net, x), row, label)
        finally:
            handle.remove()
        (theirs,) = torch.autograd.grad(score, leaf, allow_unused=True)
        theirs = torch.zeros_like(leaf[0]) if theirs is None else theirs
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-6 * float(theirs.abs().max()) + 1e-12)
        some |= bool(theirs.any())
    assert some


def test_every_family_gives_maps_and_is_left_as_it_was(case):
    case, net = case
    before = {name: value.clone() for name, value in net.state_dict().items()}
    net.train()
    try:
        (result,) = explain_detections(
            net, images(size=case.size), ["layercam", "hirescam"], per="detection", confidence=0.0, max_detections=3
        )
        assert all(module.training for module in net.modules())
    finally:
        net.eval()
    assert len(result.parts) == len(result.detections) == 3
    for part in result.parts:
        assert part.heatmaps["layercam"].shape == case.size
        assert any(part.valid.values())
        assert part.heatmaps["layercam"].min() >= 0 and part.heatmaps["layercam"].max() <= 1
    assert all(not p.requires_grad and p.grad is None for p in net.parameters())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in net.modules())
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())


def letterbox_of(net, size):
    """``size=`` that leaves a picture as it is: YOLO networks get letterboxes of 640 otherwise."""
    return {"size": max(size)} if isinstance(net, DetectionModel) and not isinstance(net, RTDETRDetectionModel) else {}


def test_explain_takes_every_family(case):
    """Picture in, heatmap out: what explain_detections gives for the input that the picture becomes."""
    case, net = case
    picture, x = drawn(case.size)
    if isinstance(net, RTDETRDetectionModel):  # made square
        picture, x = drawn((192, 192))
        settings = {"size": 192}
    else:
        settings = letterbox_of(net, case.size)
    confidence = explain_detections(net, x, "eigencam", confidence=0.0)[0].detections.scores[:4].min().item() - 1e-6
    found = explain(net, picture, ["layercam", "eigencam"], confidence=confidence, **settings)
    (wanted,) = explain_detections(net, x, ["layercam", "eigencam"], confidence=confidence)
    assert len(found["detections"]) >= 4 and len(found["parts"]) == 1
    assert [d["label"] for d in found["detections"]] == [
        family_of(net).name_of(c) for c in wanted.detections.labels.tolist()
    ]
    height, width = x.shape[2:]
    edges = torch.tensor([width, height, width, height])
    expected = wanted.detections.boxes.clamp(min=0).minimum(edges)
    torch.testing.assert_close(torch.tensor([d["box"] for d in found["detections"]]), expected, rtol=1e-3, atol=0.05)
    for method in ("layercam", "eigencam"):
        heatmap = found["methods"][method]["heatmap"]
        np.testing.assert_allclose(heatmap, wanted.parts[0].heatmaps[method], atol=0.01)
        assert heatmap.max() > 0.99
    assert found["overlay"].shape == (height, width, 3)


def test_wrappers_are_opened_and_names_found():
    net = built("yolov8n")
    holder = SimpleNamespace(model=SimpleNamespace(model=net))
    family = family_of(holder)
    assert family.model is net and family.name_of(0) == net.names[0]
    wrapped = libreyolo.LibreYOLO9(None, size="t", device="cpu")
    assert family_of(wrapped).model is wrapped.model and family_of(wrapped).name_of(0) == "person"
