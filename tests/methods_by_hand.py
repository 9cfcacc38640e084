"""What methods are compared with: PyTorch's own gradients, and numpy's loops in float64. And the methods' names, in two lists."""

import copy

import numpy as np
import torch

ONE_PASS = ("eigencam", "gradcam", "gradcam++", "xgradcam", "hirescam", "layercam", "eigengradcam")
"""The first methods: of the activations and their gradients, so that one forward and one gradient call serve them all."""

OTHERS = (
    "gradcam_elementwise",
    "fullgrad",
    "scorecam",
    "ablationcam",
    "kpcacam",
    "fem",
    "shapleycam",
    "finercam",
    "segeigencam",
    "cam",
    "smoothgradcam++",
    "randomcam",
)
"""All that come after them: each needs something more, or has a formula of its own kind."""

EIGEN = ("eigencam", "eigengradcam", "segeigencam", "kpcacam")

LAYERS = ("stage1", "residual.bn2", "stage2")  # positive, signed, positive with uniform gradients

CLASSES = torch.tensor([0, 3, 4])


def activations_and_gradients(net, layer, images, score):
    """(B, C, h, w) twice as float64 arrays; ``score`` takes the outputs and returns (B,)."""
    net, kept = copy.deepcopy(net), []

    def keep(_module, _inputs, output):
        output.retain_grad()
        kept.append(output)

    net.get_submodule(layer).register_forward_hook(keep)
    score(net(images)).sum().backward()
    return kept[-1].detach().numpy(), kept[-1].grad.numpy()


def logit(classes):
    return lambda outputs: outputs[torch.arange(len(outputs)), classes]


def weighted(weights, A):
    """(C,) and (C, h, w) → (h, w), channel by channel."""
    out = np.zeros(A.shape[1:])
    for w, a in zip(weights, A, strict=True):
        out += w * a
    return out


def resized(channel, height, width, *, aligned):
    """Bilinear, by numpy's one-dimensional interpolation along each axis; edges are repeated."""

    def positions(new, old):
        if aligned:
            return np.arange(new) * (old - 1) / max(new - 1, 1)
        return (np.arange(new) + 0.5) * old / new - 0.5

    h, w = channel.shape
    columns = np.stack([np.interp(positions(width, w), np.arange(w), row) for row in channel])
    return np.stack([np.interp(positions(height, h), np.arange(h), column) for column in columns.T]).T


def scaled(values):
    span = values.max() - values.min()
    return (values - values.min()) / span if span > 0 else np.zeros_like(values)


def first_component(M, component=0, center=True):
    """Of (cells, channels), by a full SVD; oriented to correlate positively with the channel mean."""
    M = M - M.mean(0) if center else M
    out = M @ np.linalg.svd(M, full_matrices=False)[2][component]
    covariance = ((out - out.mean()) * (M.mean(1) - M.mean())).sum()
    return out * np.sign(covariance)


def cells(A):
    return A.reshape(len(A), -1).T


def principal(A, component=0, center=True):
    return first_component(cells(A), component, center).reshape(A.shape[1:])


def assert_maps_close(actual, expected, rtol, least=2):
    """Each map (h, w) that shows something within ``rtol`` of its own largest value; at least ``least`` of them do."""
    actual, expected = np.asarray(actual, np.float64), np.asarray(expected, np.float64)
    assert actual.shape == expected.shape
    scale = np.abs(expected).max((1, 2), keepdims=True)
    alive = scale[:, 0, 0] > 0
    assert alive.sum() >= least, "too few reference maps show anything"
    np.testing.assert_allclose(actual[alive] / scale[alive], expected[alive] / scale[alive], rtol=0, atol=rtol)
    assert (np.abs(actual[~alive]) <= rtol).all()


def both_precisions(net):
    return [(net, 1e-7), (copy.deepcopy(net).float(), 5e-4)]
