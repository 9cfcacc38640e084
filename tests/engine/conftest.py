"""Models and images on which methods are compared with formulas."""

import pytest
import torch


@pytest.fixture(scope="session")
def exact_net(make_cnn):
    """float64, nothing in place. Shared: never change it in place."""
    net = make_cnn(inplace=False).double()
    with torch.no_grad():
        net.head.weight.mul_(5)
    return net


@pytest.fixture(scope="session")
def three_photos(photos):
    """Three of them, float64: (3, 3, 48, 48)."""
    return photos[[0, 3, 5]].double()
