"""Let a torchvision wheel built for CUDA work on a CPU-only torch.

PyPI's ``torchvision`` wheel is linked against the CUDA build of torch.  On the
``+cpu`` torch its ``_C.so`` cannot be loaded (``libc10_cuda.so`` is missing),
no operator gets registered, and ``import torchvision`` stops with
``RuntimeError: operator torchvision::nms does not exist``.

Call :func:`install` BEFORE the first ``import torchvision`` (also before timm,
ultralytics, transformers image processors, ...; importing this module calls it).
It first tries the real library and does nothing at all if that loads.  Otherwise
it defines, in plain torch and with the real schemas,

* ``nms``       - greedy NMS, CPU kernel (indices, not differentiable, as upstream)
* ``roi_align`` - exact RoIAlign (legacy and aligned, fixed and adaptive sampling),
                  composite, so autograd, double backward and autocast just work
* ``qnms``      - schema only, because torchvision registers a fake for it on import;
                  calling it raises NotImplementedError

and, once torchvision is imported, tells ``torchvision.extension`` that operators
exist.  Everything else (roi_pool, ps_roi_*, deform_conv2d, box_iou_rotated,
torchvision.io codecs) stays undefined and raises when called: nothing is faked.
"""

from __future__ import annotations

import importlib.util
import os
import sys

import numpy as np
import torch

__all__ = ["install", "nms", "roi_align"]

_LIB = None  # keeps the registrations alive
_STATE = None  # None | "native" | "python"


def nms(dets: torch.Tensor, scores: torch.Tensor, iou_threshold: float) -> torch.Tensor:
    """Greedy NMS.  Returns kept indices by decreasing score (ties: lower index first)."""
    if dets.dim() != 2 or dets.size(1) != 4:
        raise RuntimeError(f"boxes should be a [N, 4] tensor, got {tuple(dets.shape)}")
    if scores.dim() != 1 or scores.size(0) != dets.size(0):
        raise RuntimeError("boxes and scores should have the same number of elements in dimension 0")
    order = torch.sort(scores.detach(), descending=True, stable=True)[1]
    box = dets.detach()[order].to(torch.float64 if dets.dtype == torch.float64 else torch.float32).cpu().numpy()
    x1, y1, x2, y2 = (np.ascontiguousarray(box[:, i]) for i in range(4))
    area = (x2 - x1) * (y2 - y1)
    alive, keep = np.arange(len(box)), []
    while alive.size:
        i, rest = alive[0], alive[1:]
        keep.append(i)
        w = np.minimum(x2[i], x2[rest]) - np.maximum(x1[i], x1[rest])
        h = np.minimum(y2[i], y2[rest]) - np.maximum(y1[i], y1[rest])
        inter = np.maximum(w, 0) * np.maximum(h, 0)
        with np.errstate(divide="ignore", invalid="ignore"):
            iou = inter / (area[i] + area[rest] - inter)
        alive = rest[~(iou > iou_threshold)]  # NaN (0/0) keeps the box, as upstream
    return order[torch.as_tensor(np.asarray(keep, dtype=np.int64), device=order.device)]


def _axis(start, bin_size, pooled, grid, size):
    """Sample positions along one axis -> (low index, high index, low weight, high weight), each [K, pooled*grid]."""
    p = torch.arange(pooled, device=start.device, dtype=start.dtype)
    g = (torch.arange(grid, device=start.device, dtype=start.dtype) + 0.5) / grid
    pos = start[:, None] + (p[:, None] + g[None, :]).reshape(1, -1) * bin_size[:, None]
    valid = (pos >= -1.0) & (pos <= size)
    pos = pos.clamp(min=0)
    low = pos.floor().clamp(max=size - 1)
    pos = torch.where(low >= size - 1, low, pos)
    frac = (pos - low).clamp(0, 1)
    low = low.long()
    v = valid.to(start.dtype)
    return low, (low + 1).clamp(max=size - 1), (1 - frac) * v, frac * v


def roi_align(input, rois, spatial_scale, pooled_height, pooled_width, sampling_ratio, aligned):
    """RoIAlign with the arithmetic of torchvision's C++ kernel; differentiable in ``input``."""
    if rois.size(1) != 5:
        raise RuntimeError("rois must have shape as Tensor[K, 5]")
    if input.dtype != rois.dtype:
        raise RuntimeError(f"expected input and rois to have the same dtype, got {input.dtype} and {rois.dtype}")
    out_dtype = input.dtype
    if input.dtype in (torch.float16, torch.bfloat16):
        input, rois = input.float(), rois.float()
    rois = rois.detach()
    _, c, height, width = input.shape
    k, ph, pw = rois.size(0), int(pooled_height), int(pooled_width)
    if k == 0:
        return (input.sum() * 0).expand(0, c, ph, pw).to(out_dtype)
    off = 0.5 if aligned else 0.0
    x1, y1, x2, y2 = (rois[:, i] * spatial_scale - off for i in range(1, 5))
    rw, rh = x2 - x1, y2 - y1
    if not aligned:
        rw, rh = rw.clamp(min=1.0), rh.clamp(min=1.0)
    bh, bw = rh / ph, rw / pw
    batch = rois[:, 0].long()
    if sampling_ratio > 0:
        gh = gw = torch.full((k,), int(sampling_ratio), dtype=torch.long)
    else:
        gh, gw = bh.ceil().long().cpu(), bw.ceil().long().cpu()
    flat = input.flatten(2).transpose(0, 1).reshape(c, -1)  # [C, N*H*W]
    pieces, places = [], []
    for g_h, g_w in torch.unique(torch.stack([gh, gw], 1), dim=0).tolist():
        sel_all = torch.nonzero((gh == g_h) & (gw == g_w)).flatten().to(input.device)
        if g_h <= 0 or g_w <= 0:  # degenerate aligned RoI: zeros
            pieces.append(input.new_zeros(len(sel_all), c, ph, pw))
            places.append(sel_all)
            continue
        step = max(1, int(4e6) // max(1, c * ph * pw * g_h * g_w))
        for sel in sel_all.split(step):
            yl, yh, wyl, wyh = _axis(y1[sel], bh[sel], ph, g_h, height)
            xl, xh, wxl, wxh = _axis(x1[sel], bw[sel], pw, g_w, width)
            base = (batch[sel] * (height * width))[:, None, None]
            acc = 0
            for yi, wy in ((yl, wyl), (yh, wyh)):
                for xi, wx in ((xl, wxl), (xh, wxh)):
                    idx = (base + yi[:, :, None] * width + xi[:, None, :]).reshape(-1)
                    w = wy[:, :, None] * wx[:, None, :]
                    acc = acc + flat[:, idx].view(c, *w.shape) * w
            acc = acc.view(c, len(sel), ph, g_h, pw, g_w).mean(dim=(3, 5))
            pieces.append(acc.transpose(0, 1))
            places.append(sel)
    out = torch.cat(pieces)
    return out[torch.argsort(torch.cat(places))].to(out_dtype)


def _native_loads() -> bool:
    spec = importlib.util.find_spec("torchvision")  # finds, does not import
    if spec is None or not spec.submodule_search_locations:
        return True  # nothing to repair
    for root in spec.submodule_search_locations:
        for name in os.listdir(root):
            if name.startswith("_C.") and name.endswith((".so", ".pyd", ".dylib")):
                try:
                    torch.ops.load_library(os.path.join(root, name))
                    return True
                except (OSError, RuntimeError):
                    return False
    return False


def install() -> str:
    """Make ``import torchvision`` work.  Returns "native" (nothing done) or "python"."""
    global _LIB, _STATE
    if _STATE is not None:
        return _STATE
    tv = sys.modules.get("torchvision")
    if (tv is not None and tv.extension._has_ops()) or _native_loads():
        _STATE = "native"
        return _STATE
    lib = torch.library.Library("torchvision", "DEF")
    lib.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    lib.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    lib.define(
        "roi_align(Tensor input, Tensor rois, float spatial_scale, SymInt pooled_height, "
        "SymInt pooled_width, int sampling_ratio, bool aligned) -> Tensor"
    )
    lib.impl("nms", nms, "CPU")
    lib.impl("roi_align", roi_align, "CompositeImplicitAutograd")
    _LIB = lib
    import torchvision.extension as ext

    ext._has_ops = lambda: True
    # modules that did ``from torchvision.extension import _has_ops`` hold the old function
    for mod in list(sys.modules.values()):
        if getattr(mod, "__name__", "").startswith("torchvision.") and "_has_ops" in vars(mod):
            mod._has_ops = ext._has_ops
    _STATE = "python"
    return _STATE


install()
