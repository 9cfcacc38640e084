"""Adding a method: one function and one ``register`` line, and it is used, tracked and compared by name."""

import ast
from pathlib import Path

import numpy as np
import pytest
import torch
from pytorch_lightning import LightningModule, Trainer
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import cam_engine.methods
from cam_callbacks import CAMCallback, CAMMonitor, ProbeSet
from cam_callbacks.compare import compare_runs
from cam_engine import CAM, available_methods, register
from cam_engine.methods import registry


@pytest.fixture
def own():
    """``register`` whose methods are gone after the test."""
    before = dict(registry._METHODS)
    yield register
    registry._METHODS.clear()
    registry._METHODS.update(before)


def test_it_is_used_by_name_beside_the_others(own, cnn, photos):
    @own("gradient_norm", needs=["gradients"])
    def gradient_norm(activations, gradients):
        return gradients.norm(dim=(2, 3))

    assert available_methods()[-1] == "gradient_norm"
    result = CAM(cnn, ["gradcam", "GradientNorm"], "stage1")(photos, 1)
    assert result.methods == ("gradcam", "gradient_norm")
    assert result["gradient_norm"].shape == (8, 48, 48)
    assert result.valid["gradient_norm"].all()


@pytest.mark.parametrize("name", list(registry.NEEDS))
def test_it_gets_what_it_needs(name, own, cnn, photos):
    seen = {}

    @own("needy", needs=[name], options=["component", "center"])
    def needy(activations, component, center, **given):
        seen.update(given, component=component, center=center)
        return activations.mean(1)

    raw = CAM(cnn, "needy", "stage2", component=2, center=False)(photos, 1).raw["needy", "stage2"]
    assert set(seen) == {name, "component", "center"}
    assert (seen["component"], seen["center"]) == (2, False)
    kept = []
    cnn.stage2.register_forward_hook(lambda m, i, o: kept.append(o.detach().clone()))
    cnn(photos)
    torch.testing.assert_close(raw, kept[0].mean(1).relu())


def test_it_can_ask_for_scores_of_variants(own, cnn, photos):
    """Occlusion: how much the score falls without the upper half, as a map."""

    @own("halves", needs=["images", "scores", "rescore_images"])
    def halves(activations, images, scores, rescore_images):
        def variant(which):
            masks = torch.ones(len(which), *images.shape[-2:])
            masks[which == 0, :24], masks[which == 1, 24:] = 0, 0
            return images[:, None] * masks[None, :, None]

        fall = scores[:, None] - rescore_images(variant, 2)
        return fall[:, :, None].expand(-1, -1, 2)

    raw = CAM(cnn, "halves", "stage2", batch_size=1)(photos, 1).raw["halves", "stage2"]
    with torch.no_grad():
        whole, lower = cnn(photos)[:, 1], torch.cat([torch.zeros(8, 3, 24, 48), photos[:, :, 24:]], 2)
        np.testing.assert_allclose(raw[:, 0, 0], (whole - cnn(lower)[:, 1]).relu(), atol=1e-5)


def test_a_decorator_without_a_name_is_refused():
    with pytest.raises(TypeError, match=r'@register\("my method"\), not @register'):

        @register
        def mine(activations):
            return activations.mean((2, 3))


def test_what_it_finds_wrong_is_said_with_its_layer(own, cnn, photos):
    @own("picky")
    def picky(activations):
        raise ValueError("too few cells")

    with pytest.raises(ValueError, match="method 'picky' at layer 'stage2': too few cells"):
        CAM(cnn, "picky", "stage2")(photos)


def test_a_method_that_is_no_name_lists_the_names(cnn):
    with pytest.raises(TypeError, match=r"not int \(3\); one of eigencam, gradcam, "):
        CAM(cnn, [3])  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", ["needs", "options"])
def test_an_unknown_need_is_named(kind, own):
    with pytest.raises(ValueError, match=r"method 'mine': unknown \['gradeints'\]; needs= takes \['gradients'"):
        own("mine", **{kind: ["gradeints"]})
    assert "mine" not in available_methods()


@pytest.mark.parametrize(
    ("returned", "error", "match"),
    [
        (
            lambda A: A.mean((1, 2, 3)),
            ValueError,
            r"method 'mine' at layer 'stage2' returned shape \(8,\); expected channel weights \(8, 24\)",
        ),
        (lambda A: A[:, :5], ValueError, r"returned shape \(8, 5, 6, 6\)"),
        (lambda A: A.mean((2, 3))[:, :5], ValueError, r"returned shape \(8, 5\)"),
        (lambda A: A.mean(1)[:3], ValueError, r"returned shape \(3, 6, 6\)"),
        (lambda A: A.mean(1).numpy(), TypeError, "method 'mine' at layer 'stage2' returned ndarray"),
        (lambda A: None, TypeError, "method 'mine' at layer 'stage2' returned NoneType"),
    ],
    ids=["(B,)", "channels", "weights", "batch", "numpy", "None"],
)
def test_a_wrong_result_names_the_method_and_the_shapes(returned, error, match, own, cnn, photos):
    own("mine")(lambda activations: returned(activations))
    with pytest.raises(error, match=match):
        CAM(cnn, "mine", "stage2")(photos)


def test_a_method_can_be_replaced(own, cnn, photos):
    before = available_methods()
    own("fem")(lambda activations: activations.amax(1))
    kept = []
    cnn.stage2.register_forward_hook(lambda m, i, o: kept.append(o.detach().clone()))
    raw = CAM(cnn, "fem", "stage2")(photos).raw["fem", "stage2"]
    torch.testing.assert_close(raw, kept[0].amax(1))
    assert available_methods() == before


# --- everywhere that methods are named ---


@pytest.fixture
def brightest(own):
    """A name with what no metric key can hold."""

    @own("brightest (A/g)+", needs=["gradients"])
    def brightest(activations, gradients):
        return (activations * gradients.abs()).amax(1)

    return "brightest (A/g)+"


def test_one_line_makes_it_known_from_the_call_to_the_comparison(brightest, cnn, make_cnn, photos, tmp_path):
    assert available_methods()[-1] == brightest
    assert CAM(cnn, brightest)(photos)[brightest].shape == (8, 48, 48)

    probe = ProbeSet(photos, [0, 1, 2, 3, 4, 0, 1, 2])
    for run, seed in (("one", 0), ("two", 1)):
        monitor = CAMMonitor(probe, [brightest, "gradcam"], "stage2", folder=str(tmp_path / run), run=run)
        monitor.look(make_cnn(seed), epoch=0)
        record = monitor.look(make_cnn(seed + 1), epoch=1)
        assert record.metrics["cam/drift_ref/brightest__A_g_p"] > 0
        assert record.metrics.keys() >= {key.replace("gradcam", "brightest__A_g_p") for key in record.metrics}
        assert record.maps[brightest, "stage2"].shape == (8, 6, 6)

    comparison = compare_runs(tmp_path / "one", tmp_path / "two")
    groups = {group.title: group.rows for group in comparison.table}
    own_rows, other_rows = (next(rows for title, rows in groups.items() if m in title) for m in (brightest, "gradcam"))
    assert [row.number.key for row in own_rows] == [row.number.key for row in other_rows]
    assert brightest in comparison.text()


def test_a_fit_tracks_it(brightest, photos, tmp_path):
    images, labels = photos[:, :, :24, :24], torch.arange(8) % 2
    loader = DataLoader(TensorDataset(images, labels), batch_size=4)
    callback = CAMCallback(
        ProbeSet(images[:4], labels[:4].tolist()), methods=[brightest, "gradcam"], folder=str(tmp_path)
    )
    trainer = Trainer(
        max_epochs=2,
        accelerator="cpu",
        logger=False,
        callbacks=[callback],
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=tmp_path,
    )
    trainer.fit(Classifier(), loader, loader)
    assert torch.isfinite(trainer.callback_metrics["cam/entropy/brightest__A_g_p"])
    assert len(callback.store) == 2
    (maps,) = [m for (method, _), m in callback.store[-1].maps.items() if method == brightest]
    assert maps.shape == (4, 6, 6) and np.isfinite(maps).all() and maps.max() > 0


class Classifier(LightningModule):
    def __init__(self):
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(3, 6, 3, 2, 1), nn.ReLU(), nn.Conv2d(6, 8, 3, 2, 1), nn.ReLU())
        self.head = nn.Linear(8, 2)

    def forward(self, x):
        return self.head(self.features(x).mean((2, 3)))

    def training_step(self, batch, index):
        return nn.functional.cross_entropy(self(batch[0]), batch[1])

    def validation_step(self, batch, index):
        self.log("val_loss", nn.functional.cross_entropy(self(batch[0]), batch[1]))

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.05)


def test_each_method_of_the_package_is_one_file_and_one_line():
    """The file's function is registered in it, and the one line that imports it puts it in its place."""
    folder = Path(cam_engine.methods.__file__).parent
    lines = [node for node in ast.parse((folder / "__init__.py").read_text()).body if isinstance(node, ast.ImportFrom)]
    files = [node.module.rpartition(".")[2] for node in lines]
    methods = [name.replace("+", "p") for name in available_methods()]
    assert [name for name in files if name in methods] == methods
    for name in methods:
        tree = ast.parse((folder / f"{name}.py").read_text())
        registered = [node.name for node in tree.body if isinstance(node, ast.FunctionDef) and node.decorator_list]
        assert registered == [name]
