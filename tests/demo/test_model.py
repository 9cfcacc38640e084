"""The demo's network."""

import torch

from cam_callbacks.demo.model import SmallConvNet
from cam_engine import available_layers


def test_last_grid_is_12x12_and_the_seed_alone_decides_the_weights():
    torch.manual_seed(1)
    first = SmallConvNet(seed=4)
    torch.manual_seed(2)
    before = torch.get_rng_state()
    second = SmallConvNet(seed=4)
    assert torch.equal(before, torch.get_rng_state())
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))
    layers = {layer.name: layer.grid for layer in available_layers(first.eval(), torch.zeros(2, 3, 48, 48))}
    assert layers["features"] == (12, 12)
