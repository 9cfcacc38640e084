"""Maps that the tests of the metrics share."""

import numpy as np
import scipy.spatial.distance
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from cam_engine import CAM


@st.composite
def maps(draw, n=None, grid=None, count=1):
    """``count`` arrays (n, h, w) of the same shape: valid maps with zeros, negative values and very different sizes."""
    grid = grid or draw(st.tuples(st.integers(1, 6), st.integers(1, 6)))
    shape = (draw(st.integers(1, 4)) if n is None else n, *grid)
    cells = st.one_of(st.just(0.0), st.floats(-5, 5, allow_subnormal=False), st.floats(1e-9, 1e6))
    found = []
    for _ in range(count):
        one = draw(arrays(np.float64, shape, elements=cells))
        at = draw(st.integers(0, shape[1] * shape[2] - 1))
        one.reshape(shape[0], -1)[:, at] = np.abs(one.reshape(shape[0], -1)[:, at]) + 1e-3  # some mass
        found.append(one)
    return found[0] if count == 1 else found


grids = st.tuples(st.integers(1, 6), st.integers(1, 6)).filter(lambda g: g[0] * g[1] > 1)


def some_maps(seed, n=6, grid=(7, 5)):
    """Maps as ReLU leaves them: a focus, and zeros that tie."""
    rng = np.random.default_rng(seed)
    return np.maximum(rng.normal(size=(n, *grid)) + 3 * (rng.random((n, *grid)) > 0.9), 0)


def boxes(n=6, grid=(7, 5), seed=0):
    rng = np.random.default_rng(seed)
    found = np.zeros((n, *grid))
    for one in found:
        top, left = rng.integers(0, grid[0] - 2), rng.integers(0, grid[1] - 2)
        one[top : top + 2, left : left + 3] = 1
    return found


P, Q = some_maps(1), some_maps(2)


def each(function, *stacks):
    return [function(*one) for one in zip(*stacks, strict=True)]


def scipy_jsd(p, q):
    return scipy.spatial.distance.jensenshannon(p.ravel(), q.ravel(), base=2) ** 2


def real_maps(cnn, photos):
    result = CAM(cnn, ["gradcam", "layercam"], "stage1")(photos, 1)
    return result.raw["gradcam", "stage1"], result.raw["layercam", "stage1"]
