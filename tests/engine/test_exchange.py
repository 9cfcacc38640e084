"""The mixtures against numpy's own transforms, and which images exchange what."""

import numpy as np
import pytest
import torch

from cam_engine import exchange
from cam_engine.exchange import Mixer, available_parts, default_parts, draw_pairs, mixtures

REGIONS = ("focus", "random", "object", "background", "nuisance", "frame")
SIZE = (13, 18)  # odd and even: both ends of a real transform


@pytest.fixture
def two():
    """Donors and receivers (4, 3, 13, 18) float64, no two values alike, with means of either sign."""
    rng = np.random.default_rng(0)
    return rng.normal(0.3, 1, (4, 3, *SIZE)), rng.normal(-0.4, 2, (4, 3, *SIZE))


def apply(function, *arrays):
    return function(*map(torch.from_numpy, arrays)).numpy()


def radius():
    return np.hypot(np.fft.fftfreq(SIZE[0])[:, None], np.fft.fftfreq(SIZE[1])[None, :])


@pytest.mark.parametrize(
    ("function", "chosen"),
    [(mixtures.detail_exchange, lambda r: r > 0.15), (mixtures.coarse_exchange, lambda r: r < 0.1)],
)
def test_frequencies_come_from_the_donor(function, chosen, two):
    donor, receiver = two
    whole = np.where(chosen(radius()), np.fft.fft2(donor), np.fft.fft2(receiver))
    mixture = np.fft.ifft2(whole)
    assert np.abs(mixture.imag).max() < 1e-12
    np.testing.assert_allclose(apply(function, donor, receiver), mixture.real, atol=1e-12)


def test_detail_and_coarse_leave_a_band_between_them(two):
    donor, receiver = two
    bands = [apply(f, donor, receiver) - receiver for f in (mixtures.detail_exchange, mixtures.coarse_exchange)]
    missing = np.fft.fft2(donor - receiver - sum(bands))
    between = (radius() >= 0.1) & (radius() <= 0.15)
    assert np.abs(missing[..., ~between]).max() < 1e-9
    assert np.abs(missing[..., between]).min() > 0


def test_spectrum_has_the_donors_amplitudes_and_the_receivers_phases(two):
    donor, receiver = two
    mixed = np.fft.fft2(apply(mixtures.spectrum_exchange, donor, receiver))
    d, r = np.fft.fft2(donor), np.fft.fft2(receiver)
    np.testing.assert_allclose(np.abs(mixed), np.abs(d), rtol=1e-9)
    phase = mixed / np.abs(mixed) / (r / np.abs(r))
    phase[..., 0, 0] = 1
    np.testing.assert_allclose(phase, 1, atol=1e-9)
    np.testing.assert_allclose(mixed[..., 0, 0], d[..., 0, 0])


def test_colour_has_the_donors_mean_and_deviation_and_the_receivers_pattern(two):
    donor, receiver = two
    receiver[0, 1] = 0.7  # a constant channel has no pattern
    mixture = apply(mixtures.colour_exchange, donor, receiver)
    for b in range(4):
        for c in range(3):
            d, r = donor[b, c], receiver[b, c]
            pattern = (r - r.mean()) / r.std() if r.std() > 1e-12 else 0 * r
            np.testing.assert_allclose(mixture[b, c], pattern * d.std() + d.mean(), atol=1e-12)


@pytest.mark.parametrize("part", ["detail", "coarse", "spectrum", "colour"])
def test_a_mixture_does_not_depend_on_the_normalisation(part, two):
    function = exchange.get_part(part).function
    scale, shift = np.array([0.5, 2.0, 7.0])[:, None, None], np.array([3.0, -2.0, 0.1])[:, None, None]
    shifted = apply(function, *(side * scale + shift for side in two))
    np.testing.assert_allclose(shifted, apply(function, *two) * scale + shift, atol=1e-10)


@pytest.mark.parametrize(("size", "rows", "columns"), [((32, 48), 2, 3), ((13, 18), 1, 1), ((4, 56), 1, 4)])
def test_the_frame_is_a_sixteenth_of_each_side(size, rows, columns):
    mixture = mixtures.frame_exchange(torch.ones(2, 3, *size), torch.zeros(2, 3, *size)).numpy()
    inner = np.ones(size)
    inner[rows:-rows, columns:-columns] = 0
    np.testing.assert_array_equal(mixture, np.broadcast_to(inner, (2, 3, *size)))


def test_who_gives_the_object_and_who_the_background(two):
    donor, receiver = two
    of_donor, of_receiver = (np.random.default_rng(s).random((4, *SIZE)) < 0.3 for s in (1, 2))
    given = donor, receiver, of_donor, of_receiver
    for function, from_donor in [
        (mixtures.regions_exchange, of_donor | of_receiver),
        (mixtures.background_exchange, ~(of_donor | of_receiver)),
    ]:
        np.testing.assert_array_equal(apply(function, *given), np.where(from_donor[:, None], donor, receiver))


def test_one_object_is_in_the_picture_and_no_second_one(two):
    """The object's mixture holds nothing of the receiver's object, the background's nothing of the donor's."""
    donor, receiver = torch.zeros(1, 1, 8, 8), torch.zeros(1, 1, 8, 8)
    of_donor, of_receiver = torch.zeros(1, 8, 8, dtype=torch.bool), torch.zeros(1, 8, 8, dtype=torch.bool)
    of_donor[0, 1:3, 1:3] = of_receiver[0, 5:7, 5:7] = True
    donor[0, 0][of_donor[0]], receiver[0, 0][of_receiver[0]] = 1.0, 2.0
    both = donor, receiver, of_donor, of_receiver
    assert exchange.get_part("object").function(*both).unique().tolist() == [0, 1]
    assert exchange.get_part("background").function(*both).unique().tolist() == [0, 2]


def test_moved_regions_keep_their_size_and_wrap(two):
    donor, receiver = two
    regions = [np.random.default_rng(s).random((4, *SIZE)) < 0.2 for s in (1, 2)]
    shifts = np.array([[0, 0], [5, 0], [0, 17], [12, 9]])
    mixture = apply(mixtures.moved_regions_exchange, donor, receiver, *regions, shifts)
    for b, (down, right) in enumerate(shifts):
        from_donor = np.zeros(SIZE, bool)
        for i, j in np.argwhere(regions[0][b] | regions[1][b]):
            from_donor[(i + down) % SIZE[0], (j + right) % SIZE[1]] = True
        np.testing.assert_array_equal(mixture[b], np.where(from_donor, donor[b], receiver[b]))


@pytest.mark.parametrize("grid", [(2, 2), (4, 4), (7, 5), (32, 32)])
def test_the_focus_is_a_tenth_of_the_image_on_any_grid(grid):
    maps = torch.from_numpy(np.random.default_rng(3).random((5, *grid))) + 0.01
    region = mixtures.focus_region(maps, (32, 32))
    assert (region.flatten(1).sum(1) == 102).all()  # a tenth of 1024
    heat = torch.nn.functional.interpolate(maps[:, None].float(), (32, 32), mode="bilinear")[:, 0]
    for one, of in zip(region, heat, strict=True):
        assert of[one].min() >= of[~one].max()


def test_the_focus_ends_where_the_map_is_zero():
    maps = torch.zeros(3, 16, 16)
    maps[0, 2, 3] = 1e-6
    maps[2] = -1
    region = mixtures.focus_region(maps, (16, 16))
    assert region.flatten(1).sum(1).tolist() == [1, 0, 0] and region[0, 2, 3]


def test_a_flat_map_points_nowhere():
    rows = mixtures.focus_region(torch.ones(1, 4, 4), (40, 40))[0].float().mean(1)
    assert rows[:20].mean() == pytest.approx(0.1, abs=0.02)


def random_mixer(parts, **changes):
    rng = np.random.default_rng(4)
    given = {
        "masks": rng.random((6, *SIZE)) < 0.3,
        "nuisance": torch.from_numpy(rng.random((6, *SIZE))),
        "maps": {"a": rng.random((6, 3, 4)), "b": torch.from_numpy(rng.random((6, 2, 2)))},
    }
    images = torch.from_numpy(rng.normal(size=(6, 2, *SIZE)))
    return Mixer(images, draw_pairs(6, 4), parts, **given | changes)


def test_mixtures_of_regions_hold_only_real_pixels_of_both():
    mixer = random_mixer(REGIONS)
    assert mixer.keys == ["focus/a", "focus/b", "random/a", "random/b", "object", "background", "nuisance", "frame"]
    donors, receivers = mixer.pairs.T
    for key in mixer.keys:
        assert mixer.mixes(key).all()
        mixture = mixer(key, range(24))
        from_donor, from_receiver = mixture == mixer.images[donors], mixture == mixer.images[receivers]
        assert (from_donor | from_receiver).all()
        assert from_donor.flatten(1).any(1).all() and from_receiver.flatten(1).any(1).all()


def test_random_is_the_focus_elsewhere_and_the_same_for_a_pair_in_any_batch():
    mixer = random_mixer(["focus", "random"])
    donors, _ = mixer.pairs.T
    focus, moved = (mixer(key, range(24)) == mixer.images[donors] for key in ("focus/a", "random/a"))
    assert (focus.flatten(1).sum(1) == moved.flatten(1).sum(1)).all()
    assert (focus != moved).flatten(1).any(1).sum() >= 22
    torch.testing.assert_close(mixer("random/a", [7, 3]), mixer("random/a", range(24))[[7, 3]], rtol=0, atol=0)
    assert not torch.equal(random_mixer(["random"], seed=1)("random/a", range(24)), mixer("random/a", range(24)))


def test_pairs_without_regions_to_exchange_are_left_out():
    masks, nuisance = np.zeros((6, *SIZE), bool), np.zeros((6, *SIZE), bool)
    masks[:, 2:5, 2:5] = True
    masks[0], masks[1] = False, True  # no object; nothing but object
    nuisance[2, 1, 1] = nuisance[3, 1, 1] = True
    broken = np.ones((6, 3, 4))
    broken[4], broken[5, 0, 0] = 0, np.nan
    mixer = random_mixer(REGIONS, masks=masks, nuisance=nuisance, maps={"a": broken})
    pairs = mixer.pairs
    expected = {
        "object": ~np.isin(pairs, [0, 1]).any(1),
        "nuisance": np.isin(pairs, [2, 3]).any(1),
        "focus/a": ~np.isin(pairs, [4, 5]).any(1),
        "frame": np.ones(24, bool),
    }
    for key, counted in (expected | {"background": expected["object"], "random/a": expected["focus/a"]}).items():
        np.testing.assert_array_equal(mixer.mixes(key), counted, err_msg=key)


def test_a_new_part_is_a_function_and_a_line(monkeypatch):
    monkeypatch.setattr(exchange.parts, "_PARTS", dict(exchange.parts._PARTS))

    def left(donor, receiver, donor_mask, receiver_mask):
        width = donor.shape[-1] // 2
        return torch.cat([donor[..., :width], receiver[..., width:]], -1)

    exchange.register_part("left", left, ["masks"], words="the left half", default=True)
    assert available_parts()[-1] == "left" and default_parts(masks=True)[-1] == "left"
    mixer = random_mixer(["left"])
    assert torch.equal(mixer("left", [0])[0, ..., :9], mixer.images[mixer.pairs[0, 0], ..., :9])


def test_default_parts_are_those_that_the_images_allow():
    assert default_parts() == ("frame", "detail")
    assert default_parts(masks=True) == ("object", "background", "frame", "detail")
    everything = default_parts(masks=True, nuisance=True, maps=True)
    assert everything == ("focus", "random", "object", "background", "nuisance", "frame", "detail")
    assert set(available_parts()) - set(everything) == {"coarse", "spectrum", "colour"}


@pytest.mark.parametrize(
    ("parts", "changes", "message"),
    [
        (["objct"], {}, "no exchange part 'objct'; nearest: object"),
        (["object"], {"masks": None}, "part 'object' needs masks="),
        (["random"], {"maps": {}}, "part 'random' needs maps="),
        (["object"], {"masks": np.zeros((6, 5, 5))}, r"masks= has shape \(6, 5, 5\).*\(6, 13, 18\)"),
        (["focus"], {"maps": {"a": np.zeros((5, 2, 2))}}, r"maps= holds shape \(5, 2, 2\) for 'a'; \(6, h, w\)"),
    ],
)
def test_what_does_not_fit_is_said(parts, changes, message):
    with pytest.raises(ValueError, match=message):
        random_mixer(parts, **changes)


@pytest.mark.parametrize(("name", "needs"), [("my part", ()), ("mine", ("mask",))])
def test_a_part_that_cannot_be_is_refused(name, needs):
    with pytest.raises(ValueError, match=r"letters, digits|unknown needs"):
        exchange.register_part(name, mixtures.frame_exchange, needs, words="")


# --- pairs ---


def test_pairs_are_seeded_and_those_of_fewer_donors_are_among_those_of_more():
    few, many = draw_pairs(20, 2), draw_pairs(20, 5)
    assert few.shape == (40, 2) and many.shape == (100, 2)
    assert {tuple(p) for p in few} <= {tuple(p) for p in many}
    assert len({tuple(p) for p in many}) == 100
    assert (many[:, 0] != many[:, 1]).all() and (np.bincount(many[:, 1]) == 5).all()
    np.testing.assert_array_equal(many, draw_pairs(20, 5))
    assert (many != draw_pairs(20, 5, seed=1)).any()
    assert np.bincount(draw_pairs(20, 100)[:, 0]).tolist() == [19] * 20


def test_donors_of_another_label_come_first():
    labels = torch.tensor([0] * 10 + [1] * 2)
    pairs = draw_pairs(12, 3, labels)
    other = labels[pairs[:, 0]] != labels[pairs[:, 1]]
    assert other[:30].sum() == 20  # both of the other label, then one of the same
    assert other[30:].all()


@pytest.mark.parametrize(("n", "donors", "labels"), [(1, 3, None), (4, 0, None), (4, 1, [0, 1])])
def test_pairs_that_cannot_be_drawn_are_refused(n, donors, labels):
    with pytest.raises(ValueError, match=r"no pair|2 labels for 4 images"):
        draw_pairs(n, donors, labels)
