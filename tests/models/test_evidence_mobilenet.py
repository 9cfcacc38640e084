"""The evidence's MobileNetV2 is torchvision's: the same tensors, the same answers."""

import sys
from pathlib import Path

import pytest
import torch
from torchvision.models import mobilenet_v2

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

from evidence.mobilenet import MobileNetV2

pytestmark = pytest.mark.models


def test_the_network_is_torchvisions():
    torch.manual_seed(0)
    theirs = mobilenet_v2(weights=None).train()
    theirs(torch.randn(8, 3, 96, 96))  # statistics that are not those of initialisation
    ours = MobileNetV2()
    ours.load_state_dict(theirs.state_dict())
    images = torch.randn(2, 3, 96, 96)
    with torch.no_grad():
        torch.testing.assert_close(ours.eval()(images), theirs.eval()(images))
