"""Folders, several methods, layer names, feature maps, auto-save, and classes as methods, on plain networks."""

import copy
import json
import logging

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from cam_engine import (
    CAM,
    AutoSave,
    BaseCAM,
    autosave,
    available_layers,
    available_methods,
    compare_methods,
    explain,
    get_available_layer_names,
    register_class,
    save_feature_maps,
)
from cam_engine.loading import import_model, load_checkpoint
from cam_engine.methods import registry


@pytest.fixture
def folder(tmp_path):
    from sklearn.datasets import load_sample_images

    for name, pixels in zip(("china", "flower"), load_sample_images().images, strict=True):
        Image.fromarray(pixels).resize((96, 64)).save(tmp_path / f"{name}.png")
    (tmp_path / "notes.txt").write_text("no picture")
    return tmp_path


def state_of(net):
    hooks = [len(m._forward_hooks) + len(m._forward_pre_hooks) + len(m._backward_hooks) for m in net.modules()]
    values = {k: v.clone() for k, v in net.state_dict().items()}
    return hooks, [m.training for m in net.modules()], [p.requires_grad for p in net.parameters()], values


def assert_untouched(net, before):
    after = state_of(net)
    assert after[:3] == before[:3] and all(p.grad is None for p in net.parameters())
    assert all(torch.equal(after[3][key], value) for key, value in before[3].items())


def test_a_folder_and_a_glob_give_an_iterator(cnn, folder, tmp_path):
    results = explain(cnn, folder, save=True, output_path=tmp_path / "out")
    assert next(results)["saved_path"] == str(tmp_path / "out" / "china" / "china_gradcam_overlay.png")
    assert [r["saved_path"] for r in results] == [str(tmp_path / "out" / "flower" / "flower_gradcam_overlay.png")]
    assert [r["path"] for r in explain(cnn, str(folder / "*.png"))] == [
        str(folder / f) for f in ("china.png", "flower.png")
    ]
    with pytest.raises(FileNotFoundError, match="no picture"):
        explain(cnn, folder / "*.jpg")


def test_several_methods_share_one_sheet(cnn, folder, tmp_path):
    compared = compare_methods(cnn, folder / "china.png", ["eigencam", "GradCAM", "layercam"], save=True,
                               output_path=tmp_path / "out")  # fmt: skip
    for method in ("eigencam", "gradcam", "layercam"):
        alone = explain(cnn, folder / "china.png", method)
        np.testing.assert_allclose(compared["methods"][method]["heatmap"], alone["heatmap"], atol=1e-5)
        assert (tmp_path / "out" / method / f"china_{method}_overlay.png").is_file()
    sheet = np.asarray(Image.open(tmp_path / "out" / "china_methods.png"))
    np.testing.assert_array_equal(sheet, compared["sheet"])
    assert sheet.shape[1] > 4 * 320


def test_other_components_are_other_maps(cnn, folder):
    maps = [explain(cnn, folder / "china.png", "eigencam", component=n)["heatmap"] for n in range(3)]
    assert np.abs(maps[0] - maps[1]).max() > 0.2 and np.abs(maps[1] - maps[2]).max() > 0.2


def test_layers_by_index_of_a_sequence(folder):
    net = nn.Sequential(nn.Conv2d(3, 8, 5, 4, 2), nn.ReLU(), nn.Conv2d(8, 8, 3, 2, 1), nn.Flatten(), nn.LazyLinear(3))
    net(torch.zeros(1, 3, 64, 96))
    image = folder / "china.png"
    named = explain(net, image, target_layer="2")
    for layer in (2, -3, "-3", [-3], net[2]):
        found = explain(net, image, target_layer=layer)
        assert found["target_layer"] == "2"
        np.testing.assert_array_equal(found["heatmap"], named["heatmap"])
    with pytest.raises(IndexError, match="5 layers"):
        explain(net, image, target_layer=-6)


def test_an_index_needs_a_sequence(cnn, folder):
    with pytest.raises(ValueError, match="CNN has none"):
        explain(cnn, folder / "china.png", target_layer=-2)


def test_layer_names_are_those_with_a_grid(cnn):
    names = get_available_layer_names(cnn)
    assert names == [layer.name for layer in available_layers(cnn, torch.rand(1, 3, 224, 224))]
    assert "stage2.0" in names and "head" not in names


def test_feature_maps_of_chosen_layers(cnn, folder, tmp_path):
    before = state_of(cnn)
    out = save_feature_maps(cnn, folder / "china.png", ["stem", "stage2"], channels=5, folder=tmp_path / "maps")
    assert_untouched(cnn, before)
    assert sorted(path.name for path in out.iterdir()) == ["metadata.json", "stage2.png", "stem.png"]
    stem = json.loads((out / "metadata.json").read_text())["layers"][0]
    assert (stem["name"], stem["shape"], stem["channels_shown"], stem["stride"]) == ("stem", [12, 32, 48], 5, 2)
    pixels = np.asarray(Image.open(folder / "china.png"))
    with torch.no_grad():
        expected = cnn.stem(torch.from_numpy(pixels.copy()).permute(2, 0, 1)[None].float() / 255)[0]
    np.testing.assert_allclose(stem["range"], [[float(c.min()), float(c.max())] for c in expected[:5]], atol=1e-6)
    assert save_feature_maps(cnn, folder / "china.png", "stem", folder=tmp_path / "maps") == tmp_path / "maps-2"


def test_feature_maps_of_all_layers(cnn, folder, tmp_path):
    out = save_feature_maps(cnn, folder / "china.png", folder=tmp_path / "maps")
    wanted = {layer.name for layer in available_layers(cnn, torch.rand(1, 3, 64, 96))}
    assert {path.stem for path in out.glob("*.png")} == wanted


class Pyramid(nn.Module):
    """A layer that returns two maps, and one with five tokens before the 2×2 patches of a square: a count alone says 3×3."""

    class Two(nn.Module):
        def forward(self, x):
            return {"fine": x[:, :, ::2, ::2], "coarse": x[:, :, ::24, ::24]}

    class Tokens(nn.Module):
        def __init__(self):
            super().__init__()
            self.cls_token = nn.Parameter(torch.full((1, 5, 3), 7.0))

        def forward(self, x):
            return torch.cat([self.cls_token, x.flatten(2).transpose(1, 2)], 1)

    def __init__(self):
        super().__init__()
        self.two, self.tokens = self.Two(), self.Tokens()

    def forward(self, x):
        return self.tokens(self.two(x)["coarse"]).mean(1)


def test_feature_maps_of_an_entry_and_of_tokens_behind_others(folder, tmp_path):
    layers = ["two[coarse]", "two[fine]", "tokens"]
    square = Image.open(folder / "china.png").resize((48, 48))
    out = save_feature_maps(Pyramid(), square, layers, folder=tmp_path / "maps")
    coarse, fine, tokens = json.loads((out / "metadata.json").read_text())["layers"]
    assert (coarse["shape"], fine["shape"], tokens["shape"]) == ([3, 2, 2], [3, 24, 24], [3, 2, 2])
    assert tokens["range"] == coarse["range"] and coarse["type"] == "Two"
    assert {path.stem for path in out.glob("*.png")} == set(layers)


def test_an_unknown_layer_lists_what_exists(cnn, folder, tmp_path):
    with pytest.raises(KeyError, match=r"no layer 'stage9'.*stem.*residual.*stage2"):
        save_feature_maps(cnn, folder / "china.png", ["stage9"], folder=tmp_path / "maps")
    assert not (tmp_path / "maps").exists()


def test_autosave_saves_each_image_and_changes_nothing(cnn, photos, tmp_path, caplog):
    before, expected = state_of(cnn), cnn(photos[:2])
    with caplog.at_level(logging.INFO), autosave(cnn, "gradcam", "stage2", folder=tmp_path / "auto") as saved:
        returned = cnn(photos[:2])
    assert torch.equal(returned, expected) and returned.requires_grad
    assert_untouched(cnn, before)
    assert saved.paths == [tmp_path / "auto" / "000001", tmp_path / "auto" / "000002"] and saved.errors == []
    assert str(saved.paths[1]) in caplog.text
    result = CAM(cnn, "gradcam", "stage2")(photos[:2])
    for path, heatmap in zip(saved.paths, result["gradcam"], strict=True):
        np.testing.assert_allclose(np.load(path / f"{path.name}_gradcam_heatmap.npy"), heatmap, atol=1e-5)
    cnn(photos[:1])
    assert len(list((tmp_path / "auto").iterdir())) == 2


def test_autosave_works_in_inference_mode(cnn, photos, tmp_path):
    with torch.inference_mode(), autosave(cnn, "gradcam", folder=tmp_path) as saved:
        cnn(photos[:1])
    assert len(saved.paths) == 1 and saved.errors == []


def test_autosave_never_breaks_the_inference(cnn, photos, tmp_path, caplog):
    (tmp_path / "file").write_text("in the way")
    with autosave(cnn, folder=tmp_path / "file") as saved:
        assert cnn(photos[:1]).shape == (1, 5)
    assert len(saved.errors) == 1 and "no heatmap was saved" in caplog.text
    with pytest.raises(ZeroDivisionError), autosave(cnn, folder=tmp_path / "other"):
        raise ZeroDivisionError
    assert not cnn._forward_hooks


def test_the_wrapper_is_the_model_and_saves_until_told_otherwise(cnn, photos, tmp_path):
    wrapped = AutoSave(cnn, layer="stage2", folder=tmp_path / "auto", feature_maps=["stem"])
    assert wrapped.head is cnn.head
    wrapped(photos[:1])
    wrapped.disable()
    wrapped(photos[:1])
    wrapped.enable()
    wrapped.enable()
    wrapped(photos[:1])
    assert [path.name for path in wrapped.paths] == ["000001", "000002"]
    assert (wrapped.paths[0] / "feature_maps" / "stem.png").is_file()
    wrapped.disable()
    assert not cnn._forward_hooks
    again = AutoSave(cnn, folder=tmp_path / "auto")
    again(photos[:1])
    assert again.paths == [tmp_path / "auto" / "000003"]


class SeedGradCAMPlusPlus(BaseCAM):
    """The third seed's, with the sum that its own code multiplies by the gradient a second time put right."""

    def __init__(self, model, target_layers, reshape_transform=None):
        super().__init__(model, target_layers, reshape_transform, uses_gradients=True)

    def get_cam_weights(self, input_tensor, target_layer, targets, activations, grads):
        sums = (activations * grads**3).sum(axis=(2, 3), keepdims=True)
        alpha = np.divide(grads**2, 2 * grads**2 + sums, out=np.zeros_like(grads), where=grads != 0)
        return (alpha * np.maximum(grads, 0)).sum(axis=(2, 3))


class SeenCAM(BaseCAM):
    def __init__(self, model, target_layers, reshape_transform=None):
        super().__init__(model, target_layers, reshape_transform, uses_gradients=False)
        self.seen = []

    def get_cam_weights(self, input_tensor, target_layer, targets, activations, grads):
        self.seen.append((input_tensor.shape, target_layer, targets, type(activations), activations.shape, grads))
        return activations.mean(axis=(2, 3))


@pytest.fixture
def clean_registry(monkeypatch):
    monkeypatch.setattr(registry, "_METHODS", dict(registry._METHODS))


def test_a_class_gives_what_the_method_gives(make_cnn, photos):
    net = make_cnn().double()
    images = photos[:3].double()
    before = state_of(net)
    found = SeedGradCAMPlusPlus(net, [net.stage2])(images, targets=[0, 3, 1])
    assert_untouched(net, before)
    expected = CAM(net, "gradcam++", "stage2")(images, [0, 3, 1])["gradcam++"]
    np.testing.assert_allclose(found, expected, atol=1e-4)
    callables = [lambda output, c=c: output[c] for c in (0, 3, 1)]
    np.testing.assert_allclose(SeedGradCAMPlusPlus(net, [net.stage2])(images, callables), found, atol=1e-6)


def test_a_class_by_name(cnn, photos, clean_registry):
    register_class("seed++", SeedGradCAMPlusPlus)
    assert available_methods()[-1] == "seed++"
    by_name = CAM(cnn, "seed++", "stage2")(photos[:2], 1)["seed++"]
    np.testing.assert_allclose(by_name, SeedGradCAMPlusPlus(cnn, [cnn.stage2])(photos[:2], [1, 1]), atol=1e-6)
    with pytest.raises(TypeError, match="get_cam_weights"):
        register_class("int", int)


def test_a_class_by_name_is_given_its_layer(cnn, photos, clean_registry):
    layers = []

    class Layered(SeenCAM):
        def get_cam_weights(self, input_tensor, target_layer, targets, activations, grads):
            layers.append(target_layer)
            return activations.mean(axis=(2, 3))

    register_class("layered", Layered)
    result = CAM(cnn, "layered", ["stage1", "stage2"])(photos[:2])
    assert layers == [cnn.stage1, cnn.stage2]
    assert result.outputs is None  # and it stops the forward, as it takes no gradients


def test_what_a_class_is_given(cnn, photos):
    cam = SeenCAM(cnn, ["stage1", cnn.stage2], reshape_transform=lambda t: t[..., 1:])
    maps = cam(photos[:2], targets=[1, 2])
    assert maps.shape == (2, 48, 48) and maps.min() >= 0 and maps.max() == pytest.approx(1)
    first, second = cam.seen
    assert first == (photos[:2].shape, cnn.stage1, [1, 2], np.ndarray, (2, 16, 12, 11), None)
    assert second[1] is cnn.stage2 and second[4] == (2, 24, 6, 5)
    assert SeenCAM(cnn, ["stage2"])(photos[:2], aug_smooth=True, eigen_smooth=True).shape == (2, 48, 48)


@pytest.mark.parametrize(
    "wrap", [dict, lambda s: {"state_dict": s}, lambda s: {"state_dict": {f"net.{k}": v for k, v in s.items()}}]
)
def test_checkpoints(make_cnn, tmp_path, wrap):
    source, net = make_cnn(1), make_cnn(2)
    torch.save(wrap(copy.deepcopy(source.state_dict())), tmp_path / "weights.pt")
    load_checkpoint(net, tmp_path / "weights.pt")
    assert all(torch.equal(a, b) for a, b in zip(source.state_dict().values(), net.state_dict().values(), strict=True))


def test_checkpoints_that_do_not_fit_say_why(cnn, tmp_path):
    file = tmp_path / "weights.pt"
    state = cnn.state_dict()
    del state["head.bias"]
    torch.save(state | {"extra.weight": torch.zeros(1)}, file)
    with pytest.raises(ValueError, match=r"1 missing \(head.bias\); 1 unexpected \(extra.weight\)"):
        load_checkpoint(cnn, file)
    torch.save(cnn, file)
    with pytest.raises(ValueError, match=r"more than weights.*state_dict\(\)"):
        load_checkpoint(cnn, file)
    torch.save({"epoch": 3}, file)
    with pytest.raises(ValueError, match=r"no weights: keys \['epoch'\]"):
        load_checkpoint(cnn, file)


def test_import_paths():
    assert isinstance(import_model("torch.nn:ReLU"), nn.ReLU)
    for path, words in {"torch.nn": "package.module:name", "torch.nn:Nope": "has no 'Nope'"}.items():
        with pytest.raises(ValueError, match=words):
            import_model(path)


def test_a_lightning_module_without_a_forward_is_its_network(cnn, folder):
    import pytorch_lightning as pl

    class Task(pl.LightningModule):
        def __init__(self, *nets):
            super().__init__()
            for i, net in enumerate(nets):
                setattr(self, f"net{i}", net)

    class Forwarding(Task):
        def forward(self, x):
            return self.net0(x)

    expected = explain(cnn, folder / "china.png")["heatmap"]
    for task in (Task(cnn), Forwarding(cnn)):
        np.testing.assert_array_equal(explain(task, folder / "china.png")["heatmap"], expected)
    with pytest.raises(ValueError, match=r"model.net0, model.net1"):
        explain(Task(cnn, copy.deepcopy(cnn)), folder / "china.png")
