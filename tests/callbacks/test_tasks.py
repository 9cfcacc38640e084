"""Which task a model is trained for, told from what it returns and what is known of the probe; and what a look then says."""

from __future__ import annotations

from collections import OrderedDict, namedtuple

import numpy as np
import pytest
import torch
from torch import nn

from cam_callbacks import CAMMonitor, ProbeSet, RecordStore
from cam_callbacks.drawing import Drawing
from cam_callbacks.look.hints import Hints
from cam_callbacks.look.options import LookOptions
from cam_callbacks.look.recognise import largest_classes, recognise
from cam_callbacks.look.scores import scores_of
from cam_callbacks.watcher import Watcher, WatchOptions
from cam_engine.targets import MaskTarget

N, SIZE = 6, 16


def probe(**known):
    return ProbeSet(torch.rand(N, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0)), **known)


def told(outputs, known=None, target="label", **hints):
    of = probe(**(known or {}))
    return recognise(scores_of(outputs, of, N), of, target, Hints(**hints))


def maps(classes=3):
    """(N, H, W): the upper half class 1, the lower left class 2 in every other image, background elsewhere; a row ignored."""
    found = torch.zeros(N, SIZE, SIZE, dtype=torch.int64)
    found[:, : SIZE // 2] = 1
    if classes > 2:
        found[::2, 4:] = 2
    found[:, 0] = 255
    return found


SETS = torch.tensor([[1, 1, 0], [0, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 1], [1, 0, 0]]).bool()
VALUES = torch.linspace(0.3, 9, N)
Item = namedtuple("Item", "anomaly_map pred_label pred_score")


@pytest.mark.parametrize(
    ("kind", "outputs", "known"),
    [
        ("classification", torch.randn(N, 5), {"labels": [0, 1, 2, 3, 4, 0]}),
        ("classification", torch.randn(N, 1), {"labels": [0, 1] * 3}),
        ("classification", torch.randn(N), {"labels": [0, 1] * 3}),
        ("classification", torch.randn(N, 5, 1, 1), {"labels": [0, 1] * 3}),
        ("classification", torch.randn(N, 5), {}),
        ("classification", {"loss": torch.zeros(()), "logits": torch.randn(N, 5)}, {"labels": [0, 1] * 3}),
        ("classification", (torch.randn(N, 5), torch.randn(N, 64)), {"labels": [0, 1] * 3}),
        ("classification", torch.randn(N, 3), {"values": torch.randn(N, 3).softmax(1)}),  # soft labels
        ("multilabel", torch.randn(N, 3), {"label_sets": SETS}),
        ("segmentation", torch.randn(N, 3, SIZE, SIZE), {"class_maps": maps()}),
        ("segmentation", {"out": torch.randn(N, 3, 4, 4), "aux": torch.randn(N, 3, 4, 4)}, {"class_maps": maps()}),
        ("segmentation", (torch.randn(N, 7), torch.randn(N, 3, 4, 4)), {"class_maps": maps()}),
        ("segmentation", torch.randn(N, 1, SIZE, SIZE), {"class_maps": maps(2)}),
        ("segmentation", torch.randn(N, SIZE, SIZE), {"class_maps": maps(2)}),
        ("segmentation", torch.randn(N, 1, SIZE, SIZE), {"masks": maps(2) == 1}),
        ("regression", torch.randn(N), {"values": VALUES}),
        ("regression", torch.randn(N, 1), {"values": VALUES[:, None]}),
        ("regression", torch.randn(N, 4), {"values": torch.randn(N, 4)}),
        ("regression", torch.randn(N, 1), {"labels": [3, 40, 18, 0, 1, 99]}),
        ("no score", torch.randn(N, 3, SIZE, SIZE), {}),
        ("no score", torch.randn(N, 64, 4, 4), {"labels": [0, 1] * 3}),
        ("no score", torch.randn(N, 1, SIZE, SIZE), {"class_maps": 9 * maps()}),  # values of places
        ("no score", torch.randn(N, 50, 32), {}),
        ("no score", torch.nn.functional.normalize(torch.randn(N, 8)), {"labels": [0, 1] * 3}),
        ("anomaly", Item(torch.rand(N, 1, 4, 4), torch.ones(N), torch.rand(N)), {"labels": [0, 1] * 3}),
        ("anomaly", {"anomaly_map": torch.rand(N, 1, 4, 4)}, {}),
    ],
)  # fmt: skip
def test_what_a_model_returns_and_what_is_known_tell_the_task(kind, outputs, known):
    task = told(outputs, known)
    assert task.kind == kind
    assert "is explained" in task.words or kind == "no score"


def test_a_loss_of_embeddings_tells_them_from_classes():
    known = {"labels": [0, 1] * 3}
    assert told(torch.randn(N, 8), known, losses=("NTXentLoss",)).kind == "no score"
    assert told(torch.randn(N, 8), known, losses=("NTXentLoss", "CrossEntropyLoss")).kind == "classification"


def test_labels_beside_an_embedding_make_no_classes_of_it():
    named = {"labels": [0, 1, 2] * 2, "class_names": ["square", "disc", "cross"]}
    embedding = told(torch.randn(N, 8), named, partial=True)
    assert embedding.kind == "no score" and "(6, 8) float32, and the data have 3 classes, so" in embedding.words
    assert told(torch.randn(N, 3), named).kind == "classification"
    assert (
        told(torch.randn(N, 8), named).kind == "classification"
    )  # a head may have more outputs than there are classes
    assert told(torch.randn(N, 2), named).kind == "no score"
    assert told(torch.randn(N, 8), named, partial=True, heads=frozenset({8})).kind == "classification"
    assert told(torch.randn(N, 8), named, partial=True, losses=("CrossEntropyLoss",)).kind == "classification"
    assert told(torch.randn(N, 8), named, "predicted").kind == "classification"
    nameless = {"labels": named["labels"]}
    assert told(torch.randn(N, 8), nameless).kind == "classification"
    assert told(torch.randn(N, 3), nameless, partial=True).kind == "classification"
    assert (
        told(torch.randn(N, 4), nameless, partial=True).kind == "classification"
    )  # the probe holds no image of the last
    assert told(torch.randn(N, 8), nameless, partial=True).kind == "no score"


def test_of_several_scores_the_one_of_the_labels():
    heads = {"age": torch.randn(N, 1), "box": torch.randn(N, 4), "kind": torch.randn(N, 3)}
    known = probe(labels=[0, 1, 2] * 2, class_names=["square", "disc", "cross"])
    assert scores_of(heads, known, N).output.path == ("kind",)
    assert scores_of(heads, probe(labels=[0, 1, 2] * 2), N).output.path == ("box",)  # the first that could be it

    class Attributes(dict):  # as people write it
        __getattr__ = dict.__getitem__

    assert scores_of(Attributes(loss=torch.zeros(()), logits=torch.randn(N, 3)), known, N).output.path == ("logits",)


class Encoder(nn.Module):
    """Its forward is a part of what is trained: a decoder is called elsewhere."""

    def __init__(self, whole):
        super().__init__()
        self.encoder = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.decoder, self.whole = nn.Linear(4, 3 * SIZE * SIZE), whole

    def forward(self, x):
        code = self.encoder(x)
        return (code, self.decoder(code).reshape(-1, 3, SIZE, SIZE)) if self.whole else code


@pytest.mark.parametrize("whole", [False, True])
def test_an_encoder_with_labels_beside_its_images_is_no_classifier(whole, tmp_path):
    monitor = CAMMonitor(probe(labels=[0, 1] * 3), folder=tmp_path)
    monitor.look(Encoder(whole))
    assert monitor.task.kind == "no score"
    assert {method for method, _ in monitor.store[-1].maps} == {"eigencam"}


def test_the_users_target_goes_first():
    dense, flat = torch.randn(N, 3, 4, 4), torch.nn.functional.normalize(torch.randn(N, 8))
    assert told(dense, target=2).kind == told(dense, target="predicted").kind == "segmentation"
    assert told(flat, target="predicted").kind == "classification"
    custom = told(dense, target=lambda y: y.mean((1, 2, 3)))
    assert custom.kind == "custom" and custom.has_score
    assert told(torch.randn(N, 5), {"labels": [0, 1] * 3}, lambda y: y[:, 0]).kind == "classification"
    assert told(torch.randn(N, 4), {"values": torch.randn(N, 4)}, 3).target.index == 3


@pytest.mark.parametrize(
    ("outputs", "known", "target", "match"),
    [
        (torch.randn(N, 3), {"labels": [0, 1, 2, 3, 4, 5]}, "label", r"told: the labels go to class 5, .*Tensor \(6, 3\).*target="),
        (torch.randn(N, 2), {"values": VALUES}, "label", "cannot be told.*pass target="),
        (torch.randn(N, 3), {"label_sets": SETS[:, :2]}, "label", "cannot be told.*pass target="),
        ([object()], {}, "label", "cannot be told.*pass target="),
        (torch.randn(N, 2, 4, 4), {"class_maps": maps()}, "label", "class 2, and the model returned 2 channels.*output="),
        (torch.randn(N, 3), {"labels": [0, 1] * 3}, "all", "multi-label task, and this is classification"),
        (torch.randn(N, 4), {"values": torch.randn(N, 4)}, 4, "index of one of 4 values"),
        (torch.randn(N, 2, 4, 4, 4), {}, "label", "volumes .* not supported yet"),
    ],
)  # fmt: skip
def test_one_sentence_says_what_to_type(outputs, known, target, match):
    with pytest.raises(ValueError, match=match) as error:
        told(outputs, known, target)
    assert "\n" not in str(error.value)


def test_background_is_the_largest_class_only_where_there_is_no_other():
    found = torch.zeros(4, 2, 5, dtype=torch.int64)
    found[0, 0, :2], found[0, 1, :3] = 1, 2
    found[1, 0, 0] = 3
    found[3] = -1
    assert largest_classes(found).tolist() == [2, 3, 0, -1]


# -- what a look says
# ----------------------------------------------------------------------------------------------------------------------


class Net(nn.Module):
    """A trunk of three convolutions, and what the task makes of its last 4×4 grid."""

    def __init__(self, head):
        super().__init__()
        torch.manual_seed(1)
        steps = [nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU(), nn.Conv2d(8, 8, 3, 2, 1), nn.ReLU(), nn.Conv2d(8, 8, 3, 1, 1)]
        self.trunk, self.head = nn.Sequential(*steps, nn.ReLU()), head

    def forward(self, x):
        return self.head(self.trunk(x))


def pooled(outputs, *after):
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, outputs), *after)


def look(head, folder=None, methods=("eigencam", "gradcam"), target="label", **known):
    net, of = Net(head), probe(**known)
    monitor = CAMMonitor(of, methods, target=target, folder=folder)
    record = monitor.look(net)
    net.eval()
    with torch.no_grad():
        return monitor, record, net(of.images)


def captions(folder):
    store = RecordStore(folder)
    drawing = Drawing(store)
    return [drawing.tile(store[-1], *drawing.series[0], i).caption for i in range(N)]


@pytest.mark.parametrize("end", [[], [nn.Flatten(0)], [nn.Sigmoid()], [nn.Sigmoid(), nn.Flatten(0)]])
def test_one_logit_is_the_side_of_the_label(tmp_path, end):
    labels = torch.tensor([0, 1, 1, 0, 1, 0])
    monitor, record, outputs = look(pooled(1, *end), tmp_path / "r", labels=labels)
    z = outputs.flatten()
    ones = z if any(isinstance(e, nn.Sigmoid) for e in end) else z.sigmoid()
    np.testing.assert_allclose(record.scores, torch.where(labels == 1, z, -z), atol=1e-6)
    np.testing.assert_array_equal(record.predictions, ones > 0.5)
    np.testing.assert_allclose(record.confidences, torch.maximum(ones, 1 - ones), atol=1e-6)
    np.testing.assert_array_equal(record.targets, labels)
    assert monitor.task.words == "classification, 2 classes: the side of the label is explained"
    assert captions(tmp_path / "r")[0] == (
        "class 0 · #0", f"predicted class {record.predictions[0]} · {record.confidences[0]:.0%}"
    )  # fmt: skip


def test_the_most_certain_true_label(tmp_path):
    known = {"label_sets": SETS, "class_names": ["cat", "dog", "bird"]}
    monitor, record, z = look(pooled(3), tmp_path / "r", **known)
    best = torch.where(SETS, z, -torch.inf).argmax(1)
    there = SETS.any(1).numpy()
    np.testing.assert_array_equal(record.targets, np.where(there, best, -1))
    np.testing.assert_allclose(record.scores[there], z[range(N), best][there], atol=1e-6)
    np.testing.assert_allclose(record.confidences[there], z.sigmoid()[range(N), best][there], atol=1e-6)
    assert record.predictions is None and not any("cam/follows" in key for key in record.metrics)
    assert record.scores[1] == 0 and not record.maps[("gradcam", monitor.layer_names[0])][1].any()
    said = captions(tmp_path / "r")
    assert said[0][0] == "cat, dog · #0" and said[1] == ("no label · #1", "nothing to explain")
    name = known["class_names"][best[2]]
    assert said[2] == ("dog · #2", f"{name} · {z.sigmoid()[2, best[2]]:.0%}")

    _, every, z = look(pooled(3), target="all", **known)
    expected = torch.where(SETS, z, 0.0).sum(1) / SETS.sum(1).clamp(min=1)
    np.testing.assert_allclose(every.scores, expected, atol=1e-6)
    assert every.targets is None


@pytest.mark.parametrize("scale", [1, 4])
def test_a_segmentations_largest_class_in_its_true_region(tmp_path, scale):
    monitor, record, outputs = look(nn.Sequential(nn.Conv2d(8, 3, 1), nn.Upsample(scale_factor=scale)), tmp_path / "r",
                                    class_maps=maps())  # fmt: skip
    classes = torch.tensor([2, 1] * 3)
    regions = torch.where(maps() == 255, -1, maps()) == classes[:, None, None]
    np.testing.assert_array_equal(record.targets, classes)
    np.testing.assert_allclose(record.scores, MaskTarget(classes, regions)(outputs), atol=1e-5)
    np.testing.assert_array_equal(RecordStore(tmp_path / "r").probe["masks"], regions)
    dense = nn.functional.interpolate(outputs, SIZE).argmax(1)
    expected = [torch.bincount(d[r], minlength=3).argmax() for d, r in zip(dense, regions, strict=True)]
    np.testing.assert_array_equal(record.predictions, expected)
    assert np.isfinite(record.metrics["cam/on_target_enrichment/gradcam"])
    assert {"cam/follows_object", "cam/object_share", "cam/follows_focus/gradcam"} <= set(record.metrics)
    assert captions(tmp_path / "r")[0][0] == "class 2 · #0"

    _, wanted, outputs = look(nn.Sequential(nn.Conv2d(8, 3, 1)), tmp_path / "two", target=2, class_maps=maps())
    assert captions(tmp_path / "two")[1][1] == "without that class"
    np.testing.assert_array_equal(wanted.targets, [2, -1] * 3)
    assert not wanted.scores[1::2].any() and not wanted.maps["gradcam", monitor.layer_names[0]][1::2].any()
    assert wanted.metrics["cam/valid_frac/eigencam"] == 1


def test_a_coarse_grid_is_said_once_with_a_finer_layer():
    said = []
    of = probe(labels=[0, 1] * 3)
    watcher = Watcher("us", WatchOptions(LookOptions("eigencam", layers="coarse")), of, said.append)
    net = nn.Sequential(OrderedDict(fine=nn.Conv2d(3, 4, 3, 4, 1), coarse=nn.Conv2d(4, 4, 3, 2, 1), head=pooled(2)))
    net.head[2] = nn.Linear(4, 2)
    watcher.begin("run", None, net)
    watcher.look(net)
    watcher.look(net)
    (words,) = (line for line in said if "grid" in line)
    assert "coarse has a grid of 2×2 cells" in words and "layers='fine' has 4×4" in words
    assert [line for line in said if "explained" in line] == [
        "us: classification, 2 classes: the label's score is explained"
    ]


def test_an_image_without_the_class_is_no_collapse():
    net, of = Net(nn.Conv2d(8, 3, 1)), probe(class_maps=torch.where(maps() == 2, 1, maps()))
    of.class_maps[0] = 2
    monitor = CAMMonitor(of, "gradcam", target=2)
    monitor.look(net)
    second = monitor.look(net)
    (judged,) = (j for j in second.judged if j.rule == "collapsed")
    assert judged.state != "raised" and not second.alerts
    none = CAMMonitor(probe(class_maps=torch.zeros(N, SIZE, SIZE, dtype=torch.int64)), "gradcam", target=2)
    none.look(net)
    (judged,) = (j for j in none.look(net).judged if j.rule == "collapsed")
    assert (judged.state, judged.words) == ("cannot judge", "every image is without that class")


def test_a_predicted_value_is_shown_as_a_value(tmp_path):
    monitor, record, outputs = look(pooled(2), tmp_path / "r", values=torch.stack([VALUES, -VALUES], 1))
    np.testing.assert_allclose(record.scores, outputs[:, 0], atol=1e-6)
    assert record.predictions is None and record.confidences is None and record.targets is None
    assert captions(tmp_path / "r")[0] == ("0.3, -0.3 · #0", f"predicted {outputs[0, 0]:.4g}")
    assert not any("cam/follows" in key for key in record.metrics)
    assert RecordStore(tmp_path / "r").manifest["task"]["kind"] == "regression"
    again = monitor.look(Net(pooled(2)))
    assert "collapsed" not in [alert.name for alert in again.alerts]


def test_what_has_no_score_is_seen_by_methods_without_gradients(tmp_path):
    decoder = nn.Sequential(nn.Upsample(scale_factor=2), nn.Conv2d(8, 8, 3, 1, 1), nn.ReLU(), nn.Upsample(scale_factor=2),
                            nn.Conv2d(8, 3, 3, 1, 1))  # fmt: skip
    monitor, record, _ = look(decoder, tmp_path / "r")
    assert set(record.maps) == {("eigencam", "trunk")}  # the encoder's last layer
    assert record.scores is record.predictions is record.targets is None
    assert captions(tmp_path / "r")[0] == ("#0",) and not any("cam/follows" in key for key in record.metrics)
    assert RecordStore(tmp_path / "r").manifest["methods"] == ["eigencam"]
    assert monitor.task.words.startswith("no class score: the model returned Tensor (2, 3, 16, 16)")
    with pytest.raises(RuntimeError, match="gradcam explain a score, and there is none"):
        look(decoder, methods="gradcam")
