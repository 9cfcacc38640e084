"""Cascading randomisation: drift rises, and the model is left bit for bit as it was."""

import torch
from torch import nn

from cam_engine.metrics.sanity import cascading_randomisation


def test_drift_rises_and_the_model_stays(cnn, photos):
    before = {name: tensor.clone() for name, tensor in cnn.state_dict().items()}
    state = torch.get_rng_state()
    stages = cascading_randomisation(cnn, photos, 1, ("eigencam", "gradcam"), "stage1")
    eigencam = [stage.drift["eigencam"] for stage in stages]
    reached = [stage.layer for stage in stages].index("stage1.1")
    assert max(eigencam[:reached]) < 1e-9  # nothing before the explained layer is random yet
    assert min(eigencam[reached:]) > 0.3
    assert min(stage.drift["gradcam"] for stage in stages) > 0.3  # through the gradients, from the first layer on
    assert all(torch.equal(tensor, before[name]) for name, tensor in cnn.state_dict().items())
    assert torch.equal(state, torch.get_rng_state())
    again = cascading_randomisation(cnn, photos, 1, ("eigencam", "gradcam"), "stage1")
    assert [s.drift for s in again] == [s.drift for s in stages]


def test_weights_of_a_module_of_ones_own_become_random_too(photos):
    class Scaled(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 3, stride=4)
            self.weight = nn.Parameter(torch.tensor([1.0, 2.0, -1.0, 0.5]))

        def forward(self, x):
            return (self.conv(x).relu().mean((2, 3)) * self.weight)[:, :2]

    net = Scaled()
    stages = cascading_randomisation(net, photos, None, "gradcam", "conv")
    assert [stage.layer for stage in stages] == ["conv", ""] and stages[-1].drift["gradcam"] > 0
    assert net.weight.tolist() == [1.0, 2.0, -1.0, 0.5]
