"""The default probe of trainings as other libraries make them: what it holds is what their validation step sees."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip("torchgeo", reason="make test-models runs this in .venv-peers")
import kornia.augmentation as K
import lightning.pytorch as pl
import timm
import torchvision.transforms as v1
import torchvision.transforms.v2 as v2
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader, Dataset
from torchgeo.datamodules import NonGeoDataModule
from torchgeo.trainers import ClassificationTask, SemanticSegmentationTask
from transformers import ViTImageProcessor

from cam_callbacks import CAMCallback
from cam_callbacks.normalisation import find_normalisation

pytestmark = [pytest.mark.models, pytest.mark.timeout(900)]

N, SIZE = 8, 64
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
PICTURES = (torch.rand(N, 3, 8, 8, generator=torch.Generator().manual_seed(0)) * 255).byte()
PICTURES = nn.functional.interpolate(PICTURES, SIZE)  # blocks, so that resizing would show


class Scenes(Dataset):
    """As torchgeo's datasets give them: dictionaries, with float images of 0 to 255."""

    classes = ("water", "wood", "town")

    def __init__(self, split: str = "train", transforms: Any = None, target: str = "label") -> None:
        self.target = target

    def __len__(self) -> int:
        return N

    def __getitem__(self, index: int) -> dict[str, Any]:
        label = torch.full((SIZE, SIZE), index % 3) if self.target == "mask" else torch.tensor(index % 3)
        return {"image": PICTURES[index].float(), self.target: label}


class ScenesData(NonGeoDataModule):
    mean, std = torch.tensor(MEAN) * 255, torch.tensor(STD) * 255

    def __init__(self, target: str) -> None:
        super().__init__(Scenes, batch_size=4, target=target)
        self.train_aug = K.AugmentationSequential(
            K.Normalize(mean=self.mean, std=self.std), K.RandomHorizontalFlip(p=1.0), data_keys=None, keepdim=True
        )


def remembering(base: type) -> type:
    class Task(base):  # type: ignore[misc]
        seen: torch.Tensor

        def validation_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
            super().validation_step(batch, batch_idx, dataloader_idx)
            logits = self(batch["image"]).detach()
            self.seen = logits if batch_idx == 0 else torch.cat([self.seen, logits])

    return Task


def fit(module: Any, data: Any, *callbacks: Any) -> None:
    pl.seed_everything(0)
    trainer = pl.Trainer(
        max_epochs=1, accelerator="cpu", logger=False, callbacks=list(callbacks), enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, num_sanity_val_steps=0,
    )  # fmt: skip
    trainer.fit(module, datamodule=data)


@pytest.mark.parametrize("task", ["classification", "segmentation"])
def test_torchgeo_normalises_on_the_device(task, tmp_path):
    def make() -> tuple[Any, Any]:
        torch.manual_seed(0)
        if task == "classification":
            return remembering(ClassificationTask)(model="resnet18", in_channels=3, num_classes=3), ScenesData("label")
        module = remembering(SemanticSegmentationTask)(model="unet", backbone="resnet18", in_channels=3, num_classes=3)
        return module, ScenesData("mask")

    module, data = make()
    target = "label" if task == "classification" else lambda logits: logits[:, 0].mean((1, 2))
    watch = CAMCallback(methods="eigencam", target=target, exchange=[], folder=tmp_path, on_error="raise")
    fit(module, data, watch)
    plain, data = make()
    fit(plain, data)
    assert all(torch.equal(value, module.state_dict()[name]) for name, value in plain.state_dict().items())
    probe, rows = watch.probe, [int(name) for name in watch.probe.ids]
    with torch.no_grad():
        logits = module.eval()(probe.images)
    torch.testing.assert_close(logits, module.seen[rows], atol=1e-4, rtol=1e-4)
    assert probe.class_names == list(Scenes.classes)
    if task == "classification":
        np.testing.assert_array_equal(watch.store[-1].predictions, module.seen[rows].argmax(1))
        assert probe.labels.tolist() == [row % 3 for row in rows]
    else:
        assert probe.class_maps[:, 0, 0].tolist() == [row % 3 for row in rows]
    shown = probe.pictures().astype(int)
    assert np.abs(shown - PICTURES[rows].permute(0, 2, 3, 1).numpy()).max() <= 1


class Folder(Dataset):
    def __init__(self, transform: Any) -> None:
        self.transform = transform

    def __len__(self) -> int:
        return N

    def __getitem__(self, index: int) -> Any:
        return self.transform(Image.fromarray(PICTURES[index].permute(1, 2, 0).numpy())), index % 2


def processed(processor: Any) -> Any:
    return lambda picture: processor(picture, return_tensors="pt")["pixel_values"][0]


TRANSFORMS = {
    "torchvision": lambda: v1.Compose([v1.ToTensor(), v1.Normalize(MEAN, STD)]),
    "torchvision v2": lambda: v2.Compose([v2.ToImage(), v2.ToDtype(torch.float32, scale=True), v2.Normalize(MEAN, STD)]),
    "timm": lambda: timm.data.create_transform(SIZE, mean=MEAN, std=STD, crop_pct=1.0),
    "kornia": lambda: v1.Compose([v1.ToTensor(), K.Normalize(mean=torch.tensor(MEAN), std=torch.tensor(STD), keepdim=True)]),
    "transformers": lambda: processed(ViTImageProcessor(size={"height": SIZE, "width": SIZE}, image_mean=MEAN, image_std=STD)),
}  # fmt: skip


@pytest.mark.parametrize("library", TRANSFORMS)
def test_what_normalises_is_found_and_undone(library):
    loader = DataLoader(Folder(TRANSFORMS[library]()), N)
    images = next(iter(loader))[0]
    found = find_normalisation(images, loader)
    assert found is not None
    np.testing.assert_allclose(found, (MEAN, STD), rtol=1e-5)


def test_timm_says_at_its_models_what_they_expect():
    module = nn.Module()
    module.net = timm.create_model("mobilenetv3_small_050", pretrained=False)
    images = v1.Normalize(MEAN, STD)(PICTURES.float() / 255)
    np.testing.assert_allclose(find_normalisation(images, module), (MEAN, STD), rtol=1e-5)
