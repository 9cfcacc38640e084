"""Leave no trace: modes, buffers and random streams as they were before a model was looked at."""

from __future__ import annotations

import random
import sys
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

_BACKWARD_HOOKS = ("_backward_hooks", "_backward_pre_hooks")


@contextmanager
def untouched(model: nn.Module) -> Iterator[None]:
    """Put every module of ``model`` in eval mode, and restore modes, buffers, hooks and random streams at the end.

    ``module.training`` is set directly: ``model.eval()`` calls ``train()``, which some models override with
    side effects (ultralytics' ``YOLO.train`` starts a training). Buffers that the forward changed are copied back in
    place (:func:`as_it_is`), those that it assigned anew are put back. Backward hooks are set aside meanwhile: they belong
    to the training.
    Tensors from inference mode are replaced by copies meanwhile, see :func:`_recordable`. Parts compiled with
    ``torch.compile`` run eagerly inside.
    """
    modes = [(module, module.training) for module in model.modules()]
    buffers = [as_it_is(buffer) for buffer in model.buffers() if not buffer.is_inference()]
    registered = [(module, dict(module._buffers)) for module, _ in modes]
    hooks = [(m, n, getattr(m, n)) for m, _ in modes for n in _BACKWARD_HOOKS if getattr(m, n)]
    with ExitStack() as stack:
        stack.enter_context(random_streams())
        stack.enter_context(_recordable(model))
        if "torch._dynamo" in sys.modules:  # nothing can be compiled otherwise, and importing it takes seconds
            stack.enter_context(torch.compiler.set_stance("force_eager"))
        try:
            for module, _ in modes:
                module.training = False
            for module, name, _ in hooks:
                setattr(module, name, OrderedDict())
            yield
        finally:
            for module, mode in modes:
                module.training = mode
            for module, name, original in hooks:
                setattr(module, name, original)
            for module, before in registered:
                if any(module._buffers.get(name) is not buffer for name, buffer in before.items()):
                    module._buffers.update(before)
            for restore in buffers:
                restore()


def as_it_is(tensor: Tensor) -> Callable[[], None]:
    """What puts a tensor back as it is now: memory, shape and values, bit for bit.

    By value, for no version counter tells of what was changed through ``.data``, by numpy, or by a fused observer. Its own
    counter stays as it is, so that a backward that is still to come finds what it saved. A tensor of a kind that cannot be
    compared (sparse, quantized, a subclass) is put back where its counter moved. Of one that is spread over processes the part
    that lies here is.
    """
    part = getattr(tensor, "_local_tensor", None)
    if type(part) is Tensor:
        return as_it_is(part)
    version, memory, plain = tensor._version, tensor.data, _is_plain(tensor)
    if plain and memory.numel() and not memory.untyped_storage().size():
        return lambda: None  # FSDP1 keeps views of memory that it has freed
    try:
        values = memory.clone()
    except torch.OutOfMemoryError:
        values = memory.cpu()

    def restore() -> None:
        if not plain:
            if tensor._version != version:
                with torch.no_grad():
                    tensor.copy_(values)
            return
        if not tensor.data.is_set_to(memory):
            tensor.data = memory
        # An accelerator writes faster than it answers; in a computer's own memory, what is not to be written to may lie.
        if memory.device.type != "cpu" or not same_bits(memory, values):
            memory.copy_(values)

    return restore


def _is_plain(tensor: Tensor) -> bool:
    if type(tensor.data) is not Tensor or tensor.layout != torch.strided or tensor.is_quantized or tensor.is_meta:
        return False
    return torch._debug_has_internal_overlap(tensor) != 1  # an expanded one cannot be written to


def same_bits(one: Tensor, other: Tensor) -> bool:
    """Do two dense tensors of one dtype and shape hold the same bits? NaNs and signed zeros are told apart."""
    first, second = (t.resolve_conj().resolve_neg().reshape(-1).contiguous() for t in (one, other))
    size = first.element_size()
    wide = all(n * size % 8 == 0 for n in (first.numel(), first.storage_offset(), second.storage_offset()))
    numbers = torch.int64 if wide else torch.uint8  # torch compares the wide ones four times as fast
    return torch.equal(first.view(numbers), second.view(numbers))


@contextmanager
def _recordable(model: nn.Module) -> Iterator[None]:
    """Swap inference tensors, which autograd refuses, for copies, and put them back at the end.

    A forward in inference mode leaves them behind where a module keeps what it computed as a buffer or a plain attribute,
    such as ultralytics' anchors after ``predict()``. What the model itself has replaced meanwhile stays.
    """
    swapped = [
        (kept, name, value)
        for module in model.modules()
        for kept in (vars(module), module._buffers)
        for name, value in kept.items()
        if isinstance(value, Tensor) and value.is_inference()
    ]
    with torch.inference_mode(False):
        copies = [value.clone() for _, _, value in swapped]
    for (kept, name, _), copy in zip(swapped, copies, strict=True):
        kept[name] = copy
    try:
        yield
    finally:
        for (kept, name, value), copy in zip(swapped, copies, strict=True):
            if kept.get(name) is copy:
                kept[name] = value


@contextmanager
def weights_kept(model: nn.Module) -> Iterator[None]:
    """Put every parameter and buffer back at the end, as :func:`as_it_is` does; the random streams too.

    Takes as much memory again as the weights do meanwhile.
    """
    tensors = [t for t in (*model.parameters(), *model.buffers()) if not (t.is_inference() or is_lazy(t))]
    before = [as_it_is(tensor) for tensor in tensors]
    with random_streams():
        try:
            yield
        finally:
            for restore in before:
                restore()


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
