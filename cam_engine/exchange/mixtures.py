"""Mixtures of two images: one part from a donor, the rest from a receiver.

One pure function a part, on batches ``donor``, ``receiver`` (B, C, H, W) of real numbers in any unit, which return (B, C, H, W).
Regions are (B, H, W), bool, or coverage in [0, 1], of which a pixel counts above ½. A mixture by regions holds only pixels of the
two images, none blended. Frequencies, spectrum and colour make new pixels, and may leave the range of both.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

FRAME = 1 / 16  # of each side
FOCUS_SHARE = 0.1  # of the image
DETAIL, COARSE = 0.15, 0.1  # cycles a pixel


def exchange(donor: Tensor, receiver: Tensor, region: Tensor) -> Tensor:
    """The donor's pixels inside ``region`` (B, H, W), the receiver's outside."""
    return torch.where(region[:, None] > 0.5, donor, receiver)


def background_exchange(donor: Tensor, receiver: Tensor, donor_mask: Tensor, receiver_mask: Tensor) -> Tensor:
    """The receiver's object in the donor's image, whose own object does not stay: both masks from the receiver.

    The object's own test is :func:`regions_exchange` of the masks: the donor's object in the receiver's image. With the objects of
    both in one picture a healthy network follows either: its share of pairs is ½ for small objects at random places, where it is
    0.98 to 1 without the receiver's own.
    """
    return exchange(receiver, donor, _union(donor_mask, receiver_mask))


def regions_exchange(donor: Tensor, receiver: Tensor, donor_region: Tensor, receiver_region: Tensor) -> Tensor:
    """Both images' regions from the donor, so that the receiver's own evidence there is gone too."""
    return exchange(donor, receiver, _union(donor_region, receiver_region))


def moved_regions_exchange(
    donor: Tensor, receiver: Tensor, donor_region: Tensor, receiver_region: Tensor, shifts: Tensor
) -> Tensor:
    """Both images' regions, moved together by ``shifts`` (B, 2) pixels (down, right) and wrapped, from the donor: what any
    region of this size and shape does."""
    regions = _union(donor_region, receiver_region)
    moved = [region.roll((down, right), (0, 1)) for region, (down, right) in zip(regions, shifts.tolist(), strict=True)]
    return exchange(donor, receiver, torch.stack(moved))


def frame_exchange(donor: Tensor, receiver: Tensor) -> Tensor:
    """The outer sixteenth of each side, at least one pixel, from the donor."""
    height, width = donor.shape[-2:]
    rows, columns = max(1, round(FRAME * height)), max(1, round(FRAME * width))
    frame = torch.ones(1, height, width, dtype=torch.bool, device=donor.device)
    frame[:, rows : height - rows, columns : width - columns] = False
    return exchange(donor, receiver, frame)


def detail_exchange(donor: Tensor, receiver: Tensor) -> Tensor:
    """Spatial frequencies above 0.15 cycles a pixel from the donor."""
    return _frequencies(donor, receiver, _radius(donor) > DETAIL)


def coarse_exchange(donor: Tensor, receiver: Tensor) -> Tensor:
    """Spatial frequencies below 0.1 cycles a pixel from the donor, the mean with them."""
    return _frequencies(donor, receiver, _radius(donor) < COARSE)


def spectrum_exchange(donor: Tensor, receiver: Tensor) -> Tensor:
    """The donor's amplitudes with the receiver's phases.

    The mean of a channel has an amplitude and a sign; both are the donor's, so that the mixture does not depend on how the
    channels were normalised.
    """
    ours, theirs = torch.fft.rfft2(donor), torch.fft.rfft2(receiver)
    mixed = torch.polar(ours.abs(), theirs.angle())
    mixed[..., 0, 0] = ours[..., 0, 0]
    return torch.fft.irfft2(mixed, s=donor.shape[-2:])


def colour_exchange(donor: Tensor, receiver: Tensor) -> Tensor:
    """The donor's mean and standard deviation of each channel, on the receiver."""
    spread, mean = torch.std_mean(receiver, dim=(2, 3), correction=0, keepdim=True)
    new_spread, new_mean = torch.std_mean(donor, dim=(2, 3), correction=0, keepdim=True)
    scaled = (receiver - mean) / torch.where(spread > 0, spread, 1.0)
    return scaled * new_spread + new_mean


def focus_region(maps: Tensor, size: tuple[int, int], share: float = FOCUS_SHARE) -> Tensor:
    """Where a map is highest: maps (B, h, w) → (B, H, W) bool, ``share`` of the pixels of an image of ``size``.

    Maps are upsampled as for pictures (bilinear, half-pixel centres), so that the share is the same on any grid. Never where
    the map is not above zero: a region may be smaller, or empty.
    """
    heat = F.interpolate(maps.float().relu()[:, None], size=size, mode="bilinear", align_corners=False).flatten(1)
    pixels = heat.shape[1]
    # Pixels that tie are taken in a scattered order: in reading order a flat map would point to the upper edge.
    scattered = torch.randperm(pixels, generator=torch.Generator().manual_seed(0)).to(heat.device)
    highest = heat[:, scattered].sort(dim=1, descending=True, stable=True).indices[:, : max(1, round(share * pixels))]
    region = torch.zeros_like(heat, dtype=torch.bool).scatter_(1, scattered[highest], True)
    return (region & (heat > 0)).unflatten(1, size)


def _union(donor_region: Tensor, receiver_region: Tensor) -> Tensor:
    return (donor_region > 0.5) | (receiver_region > 0.5)


def _radius(images: Tensor) -> Tensor:
    """(H, W // 2 + 1): the length of each spatial frequency of a real image's transform, in cycles a pixel."""
    height, width = images.shape[-2:]
    down = torch.fft.fftfreq(height, device=images.device, dtype=images.dtype)
    right = torch.fft.rfftfreq(width, device=images.device, dtype=images.dtype)
    return torch.hypot(down[:, None], right[None, :])


def _frequencies(donor: Tensor, receiver: Tensor, chosen: Tensor) -> Tensor:
    mixed = torch.where(chosen, torch.fft.rfft2(donor), torch.fft.rfft2(receiver))
    return torch.fft.irfft2(mixed, s=donor.shape[-2:])
