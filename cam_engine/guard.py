"""Leave no trace: modes, buffers and random streams as they were before a model was looked at."""

from __future__ import annotations

import random
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import numpy as np
import torch
from torch import nn


@contextmanager
def untouched(model: nn.Module) -> Iterator[None]:
    """Put every module of ``model`` in eval mode, and restore modes, buffers and random streams at the end.

    ``module.training`` is set directly: ``model.eval()`` calls ``train()``, which some models override with
    side effects (ultralytics' ``YOLO.train`` starts a training). Buffers that the forward changed are copied back in
    place. Parts compiled with ``torch.compile`` run eagerly inside.
    """
    modes = [(module, module.training) for module in model.modules()]
    buffers = [(b, b._version, b.detach().clone()) for b in model.buffers() if not b.is_inference()]
    with ExitStack() as stack:
        stack.enter_context(random_streams())
        if "torch._dynamo" in sys.modules:  # nothing can be compiled otherwise, and importing it takes seconds
            stack.enter_context(torch.compiler.set_stance("force_eager"))
        try:
            for module, _ in modes:
                module.training = False
            yield
        finally:
            for module, mode in modes:
                module.training = mode
            with torch.no_grad():
                for buffer, version, before in buffers:
                    if buffer._version != version:
                        buffer.copy_(before)


@contextmanager
def random_streams() -> Iterator[None]:
    """Restore the random states of Python, numpy and torch (CPU, and CUDA where it is in use) at the end."""
    python, numpy, cpu = random.getstate(), np.random.get_state(), torch.get_rng_state()
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_available() and torch.cuda.is_initialized() else []
    mps = torch.mps.get_rng_state() if torch.backends.mps.is_available() else None
    try:
        yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)
        torch.set_rng_state(cpu)
        if cuda:
            torch.cuda.set_rng_state_all(cuda)
        if mps is not None:
            torch.mps.set_rng_state(mps)
