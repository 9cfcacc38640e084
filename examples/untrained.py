"""Detectors without weights that detect something, so that the examples run with nothing downloaded.

A network at random initialisation scores nothing above 0.25. Here its normalisation layers see one photograph, and the class
scores are shifted until a few places pass: the boxes mean nothing, but everything downstream of them is real.
"""

import numpy as np
import torch
from PIL import Image
from torch import nn


def photograph(name: str = "china.jpg") -> Image.Image:
    from sklearn.datasets import load_sample_image

    return Image.fromarray(load_sample_image(name))


@torch.no_grad()
def make_it_detect(net: nn.Module, classes: tuple[int, ...] = (15, 16), share: float = 0.003) -> None:
    """Let ``share`` of an ultralytics-style network's places detect one of ``classes``."""
    small = photograph().resize((320, 224))
    image = torch.from_numpy(np.array(small)).permute(2, 0, 1)[None].float() / 255
    torch.manual_seed(0)
    norms = [module for module in net.modules() if isinstance(module, nn.BatchNorm2d)]
    momenta = [module.momentum for module in norms]
    for module in norms:
        module.reset_running_stats()
        module.momentum = None
    net.train()
    net(image)
    net.eval()
    for module, momentum in zip(norms, momenta, strict=True):
        module.momentum = momentum
    head = getattr(net, "head", None) or net.model[-1]
    convs = [branch[-1] for branch in head.cv3]
    for conv in convs:
        conv.bias.fill_(-9)
        conv.weight.zero_()
        for index in classes:
            conv.weight[index].normal_(0, 0.3)
            conv.bias[index] = 0
    returned = net(image)
    found = returned["predictions"] if isinstance(returned, dict) else returned[0]
    scores = found[0, 4:].logit(1e-6)
    for index in classes:
        passing = scores[index].quantile(1 - share)
        for conv in convs:
            conv.bias[index] -= passing
