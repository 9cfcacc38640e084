"""What lies under a map's focus, cut out of the picture."""

import numpy as np
import pytest

from cam_engine.render import above, focus_wall, under_focus


def picture(height=48, width=64):
    rows, columns = np.mgrid[:height, :width]
    return np.stack([rows, columns, rows + columns], axis=-1).astype(np.uint8)


@pytest.mark.parametrize(("cell", "centre"), [((0, 0), (9, 9)), ((2, 3), (30, 56)), ((1, 1), (18, 24))])
def test_the_window_lies_around_the_peak_and_inside_the_picture(cell, centre):
    heat = np.zeros((4, 4))
    heat[cell] = 1.0
    side = 18  # three eighths of 48
    top = min(max(round((cell[0] + 0.5) / 4 * 48 - side / 2), 0), 48 - side)
    left = min(max(round((cell[1] + 0.5) / 4 * 64 - side / 2), 0), 64 - side)
    crop = under_focus(picture(), heat)
    np.testing.assert_array_equal(crop, picture()[top : top + side, left : left + side])
    assert (
        abs(crop[side // 2, side // 2, 0] - centre[0]) <= 1 and abs(int(crop[side // 2, side // 2, 1]) - centre[1]) <= 2
    )


def test_the_peak_is_between_cells_that_are_equally_high():
    heat = np.zeros((4, 4))
    heat[1:3, 1:3] = 1.0
    crop = under_focus(picture(48, 48), heat)
    np.testing.assert_array_equal(crop, picture(48, 48)[15:33, 15:33])


def test_a_map_of_equal_cells_has_a_window():
    assert under_focus(picture(), np.ones((4, 4))).shape == (18, 18, 3)


@pytest.mark.parametrize("heat", [np.full((4, 4), np.nan), np.zeros((4, 4)), np.full((4, 4), -1.0)])
def test_a_map_that_is_not_valid_has_no_window(heat):
    assert under_focus(picture(), heat) is None


def test_the_wall_has_a_row_each_and_a_size_that_does_not_depend_on_the_words():
    crops = [[picture(18, 18), None], [picture(20, 20)]]
    one = focus_wall(crops, row_labels=["cat", "a very long name of a class"], title="t", note="n")
    two = focus_wall(crops, row_labels=["dog", "b"], title="another title", note="m")
    assert one.shape == two.shape and one.dtype == np.uint8 and (one != two).any()
    assert focus_wall(crops * 2, row_labels=["a"] * 4, title="t", note="n").shape[0] == one.shape[0] + 2 * 58
    with pytest.raises(ValueError, match="a label for each, got 2 and 1"):
        focus_wall(crops, row_labels=["cat"])


def test_two_pictures_stand_on_one_page():
    whole = above(picture(10, 20), picture(5, 8))
    assert whole.shape == (15, 20, 3) and (whole[10:, 8:] == 255).all()
    np.testing.assert_array_equal(whole[10:, :8], picture(5, 8))
