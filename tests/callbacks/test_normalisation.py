"""Mean and standard deviation, found in what normalises, and taken only if they fit the images."""

from __future__ import annotations

import functools
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from cam_callbacks.normalisation import find_normalisation

MEAN, STD = np.array([0.3, 0.5, 0.7]), np.array([0.1, 0.2, 0.3])
PICTURES = torch.rand(4, 3, 8, 8, generator=torch.Generator().manual_seed(0))
IMAGES = (PICTURES - torch.tensor(MEAN)[:, None, None]) / torch.tensor(STD)[:, None, None]


class Normalize(nn.Module):
    def __init__(self, mean, std):
        super().__init__()
        self.mean, self.std = mean, std


class Holder:
    def __init__(self, **attributes):
        vars(self).update(attributes)


def with_lambda(normalize):
    return lambda image: normalize(image)


@pytest.mark.parametrize(
    "holder",
    [
        Holder(transform=Holder(transforms=[nn.Flatten(), Normalize(MEAN.tolist(), STD.tolist())])),
        Holder(transform=nn.Sequential(Normalize(torch.tensor(MEAN)[None, :, None, None], torch.tensor(STD)))),
        Holder(collate_fn=functools.partial(print, with_lambda(Normalize(tuple(MEAN), tuple(STD))))),
        Holder(flags={"mean": torch.tensor(MEAN), "std": torch.tensor(STD)}),
        Holder(model=Holder(pretrained_cfg={"mean": tuple(MEAN), "std": tuple(STD), "url": ""})),
        Holder(processor=Holder(image_mean=MEAN.tolist(), image_std=STD.tolist())),
        Holder(mean=torch.tensor(MEAN) * 255, std=torch.tensor(STD) * 255),
        Holder(mean=[0.485, 0.456, 0.406], std=[0.229, 0.224, 0.225], inner=Normalize(MEAN, STD)),
    ],
)
def test_found_wherever_it_lies(holder):
    mean, std = find_normalisation(IMAGES, holder)
    np.testing.assert_allclose(mean, MEAN)
    np.testing.assert_allclose(std, STD)


@pytest.mark.parametrize(
    "holder",
    [
        Holder(mean=[0.0, 0.0, 0.0], std=[3.0, 3.0, 3.0]),  # would leave [0, 1]
        Holder(mean=[0.5, 0.5], std=[0.2, 0.2]),  # of two channels
        Holder(mean="a", std="b"),
        Holder(mean=0.0, std=1.0),
        SimpleNamespace(),
    ],
)
def test_what_does_not_fit_is_not_taken(holder):
    assert find_normalisation(IMAGES, holder) is None


def test_images_in_the_unit_range_have_nothing_to_undo():
    assert find_normalisation(PICTURES, Normalize(MEAN, STD)) is None
