"""Pictures: what a map looks like on an image, and that words and odd input never break the picture."""

import io
import os
import re
import runpy
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib import colormaps as matplotlib_colormaps
from PIL import Image, ImageDraw

from cam_engine import render
from cam_engine.render import Tile, text

INVALID_MAPS = {
    "all zero": np.zeros((7, 7)),
    "negative": -np.ones((7, 7)),
    "NaN": np.where(np.eye(7, dtype=bool), np.nan, 1.0),
    "infinite": np.where(np.eye(7, dtype=bool), np.inf, 1.0),
    "too faint": np.full((7, 7), 1e-15),
}
HOSTILE = [
    "x" * 500,
    "two\nlines\tand\x00more",
    "🐱👩‍👩‍👧 日本語",
    "\ud800 lone surrogate",
    " · " * 300,
    "y" * 100_000,
    "",
]


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


@pytest.fixture
def image(rng) -> np.ndarray:
    return rng.integers(0, 256, (48, 64, 3), dtype=np.uint8)


@pytest.fixture
def heatmap(rng) -> np.ndarray:
    return rng.random((7, 7), dtype=np.float32)


def flat(value: int, height: int = 48, width: int = 48) -> np.ndarray:
    return np.full((height, width, 3), value, np.uint8)


class TestUnitScale:
    def test_spans_zero_to_one_after_relu(self):
        scaled = render.unit_scale([[-5.0, 2.0], [1.0, 4.0]])
        assert scaled.dtype == np.float32
        np.testing.assert_allclose(scaled, [[0, 0.5], [0.25, 1]])

    @pytest.mark.parametrize("size", [1e-20, 1e-3, 1e20])
    def test_does_not_depend_on_the_size_of_the_values(self, heatmap, size):
        scaled = render.unit_scale(heatmap.astype(np.float64) * size)
        np.testing.assert_allclose(scaled, render.unit_scale(heatmap), atol=1e-6)

    @pytest.mark.parametrize("value", [0.0, 3.0, -3.0])
    def test_equal_cells_become_zeros(self, value):
        assert not render.unit_scale(np.full((4, 5), value)).any()

    def test_refuses_what_cannot_be_scaled(self):
        with pytest.raises(ValueError, match="is_valid"):
            render.unit_scale(INVALID_MAPS["NaN"])


class TestIsValid:
    @pytest.mark.parametrize("name", INVALID_MAPS)
    def test_no_for(self, name):
        assert not render.is_valid(INVALID_MAPS[name])

    @pytest.mark.parametrize("values", [[[0.0, 2e-12]], [[-9.0, 1.0]], [[1e308, 1e308]]])
    def test_yes_for(self, values):
        assert render.is_valid(np.array(values))


@pytest.mark.parametrize("grid", [(7, 7), (1, 1), (12, 5), (3, 14)])
@pytest.mark.parametrize("size", [(224, 224), (48, 101), (13, 4)])
def test_upsample_equals_torch(rng, grid, size):
    heatmap = rng.random(grid, dtype=np.float32)
    upsampled = render.upsample(heatmap, size)
    assert upsampled.dtype == np.float32
    # torch's own float32 result is up to 1e-6 away from its float64 one.
    for dtype, tolerance in ((torch.float64, 1e-7), (torch.float32, 1e-6)):
        batch = torch.from_numpy(heatmap)[None, None].to(dtype)
        expected = torch.nn.functional.interpolate(batch, size=size, mode="bilinear", align_corners=False)
        np.testing.assert_allclose(upsampled, expected[0, 0].numpy(), rtol=0, atol=tolerance)


class TestColorize:
    @pytest.mark.parametrize("name", sorted(set(render.COLORMAPS) - {"jet", "red"}))
    def test_equals_matplotlib(self, name):
        ramp = np.linspace(0, 1, 256)[None]
        expected = matplotlib_colormaps[name](ramp)[..., :3] * 255
        np.testing.assert_allclose(render.colorize(ramp, name), expected, atol=1.01)

    def test_is_rgb(self):
        dark, bright = render.colorize([[0.0, 1.0]], "inferno")[0].astype(int)
        assert dark.sum() < 10
        assert bright[0] > 245
        assert bright[0] > bright[2] + 50  # inferno ends in a light yellow: more red than blue

    def test_out_of_range_names_the_remedy(self):
        with pytest.raises(ValueError, match="unit_scale"):
            render.colorize([[0.0, 1.5]])
        with pytest.raises(ValueError, match="unit_scale"):
            render.colorize([[0.0, np.nan]])


class TestOverlay:
    def test_blends_as_computed_by_hand(self):
        # inferno ends in (252, 255, 164) and begins in (0, 0, 4).
        blended = render.overlay(flat(100, 2, 4), [[0.0, 1.0]], alpha=0.25, colormap="inferno", cells=True)
        np.testing.assert_array_equal(blended[0, 3], [138, 139, 116])  # 75 + (63, 63.75, 41)
        np.testing.assert_array_equal(blended[0, 0], [75, 75, 76])

    def test_focus_leaves_what_is_cold_as_it_is(self):
        ramp = np.linspace(0, 1, 101)[None]
        picture = flat(100, 1, 101)
        found = render.overlay(picture, ramp, alpha=0.5, focus=True, cells=True)
        np.testing.assert_array_equal(found[:, :21], picture[:, :21])  # up to 0.2
        whole = render.overlay(picture, ramp, alpha=0.5, cells=True)
        np.testing.assert_allclose(found[:, 60:].astype(int), whole[:, 60:], atol=1)  # from 0.6 on
        assert (np.abs(found.astype(int) - picture).sum(2)[0, 24:60] > 0).all()

    def test_red_peaks_in_red(self):
        colors = render.colorize(np.linspace(0, 1, 256)[None], "red")[0].astype(int)
        assert colors[-1][0] > 180 and colors[-1][1:].max() < 40
        assert (np.diff(colors.sum(1)) <= 0).all(), "it darkens all the way"

    def test_is_the_formula_on_every_pixel(self, image, heatmap):
        color = render.colorize(render.upsample(render.unit_scale(heatmap), image.shape[:2]).clip(0, 1))
        expected = 0.6 * image.astype(float) + 0.4 * color
        np.testing.assert_allclose(render.overlay(image, heatmap, alpha=0.4), expected, atol=0.51)

    def test_alpha_zero_is_the_picture_and_alpha_one_the_colour(self, image, heatmap):
        np.testing.assert_array_equal(render.overlay(image, heatmap, alpha=0), image)
        np.testing.assert_array_equal(
            render.overlay(image, heatmap, alpha=1), render.overlay(flat(0, 48, 64), heatmap, alpha=1)
        )

    def test_brightness_ignores_the_size_of_the_map(self, image, heatmap):
        np.testing.assert_array_equal(render.overlay(image, heatmap), render.overlay(image, heatmap * 1000))

    def test_brightness_of_a_pixel_ignores_the_rest_of_the_picture(self, image, heatmap):
        brighter = image.copy()
        brighter[:, 32:] = 255
        ours, theirs = render.overlay(image, heatmap), render.overlay(brighter, heatmap)
        np.testing.assert_array_equal(ours[:, :32], theirs[:, :32])

    @pytest.mark.parametrize("name", INVALID_MAPS)
    def test_an_invalid_map_leaves_the_picture(self, image, name):
        np.testing.assert_array_equal(render.overlay(image, INVALID_MAPS[name]), image)

    def test_without_a_map_it_is_a_copy(self, image):
        plain = render.overlay(image, None)
        np.testing.assert_array_equal(plain, image)
        assert not np.shares_memory(plain, image)

    def test_cells_shows_the_native_grid(self):
        colors = render.overlay(flat(0), np.arange(16.0).reshape(4, 4), alpha=1, cells=True)
        blocks = colors.reshape(4, 12, 4, 12, 3).swapaxes(1, 2).reshape(16, 144, 3)
        assert (blocks == blocks[:, :1]).all()
        assert len(np.unique(blocks[:, 0], axis=0)) == 16

    @pytest.mark.parametrize("shape", [(8, 8, 3), (1000, 600, 3), (1, 50, 3)])
    def test_any_size_and_memory_layout(self, shape, heatmap):
        image = np.zeros(shape, np.uint8)[::-1, ::-1]
        assert render.overlay(image, heatmap).shape == shape

    def test_bad_input_says_what_was_given_and_expected(self, image, heatmap):
        with pytest.raises(TypeError, match=r"uint8.*float64"):
            render.overlay(image / 255, heatmap)
        with pytest.raises(TypeError, match=r"numpy array.*list"):
            render.overlay(image.tolist(), heatmap)
        with pytest.raises(ValueError, match=r"\(H, W, 3\).*\(48, 64\)"):
            render.overlay(image[..., 0], heatmap)
        with pytest.raises(ValueError, match=r"\(h, w\).*\(1, 7, 7\)"):
            render.overlay(image, heatmap[None])
        with pytest.raises(TypeError, match="real numbers"):
            render.overlay(image, [["a"]])
        with pytest.raises(ValueError, match=r"'rainbow'.*inferno"):
            render.overlay(image, heatmap, colormap="rainbow")
        with pytest.raises(ValueError, match=r"alpha.*1\.5"):
            render.overlay(image, heatmap, alpha=1.5)


class TestTile:
    def test_bad_input_says_what_was_given_and_expected(self, image):
        with pytest.raises(TypeError, match="tuple of lines"):
            Tile(image, caption="cat")
        with pytest.raises(TypeError, match=r"masks must be a bool array, got uint8"):
            Tile(image, masks=image[..., 0])
        with pytest.raises(ValueError, match=r"nuisance.*\(48, 64\).*\(64, 48\)"):
            Tile(image, nuisance=np.zeros((64, 48), bool))
        with pytest.raises(ValueError, match="x1, y1, x2, y2"):
            Tile(image, boxes=[(1, 2, 3)])


class TestPanel:
    def test_holds_the_picture_enlarged(self):
        panel = render.panel(Tile(flat(10)), title="t", size=224)
        assert (panel == 10).all(axis=2).sum() == 224 * 224

    def test_never_shrinks_a_picture(self):
        panel = render.panel(Tile(flat(10, 600, 1000)), size=224)
        assert (panel == 10).all(axis=2).sum() == 600 * 1000

    @pytest.mark.parametrize("shape", [(8, 8), (48, 48), (1000, 600), (5, 300), (300, 5)])
    def test_any_shape_with_everything_on_it(self, shape):
        mask = np.zeros(shape, bool)
        mask[: shape[0] // 2 + 1, : shape[1] // 2 + 1] = True
        full = Tile(flat(90, *shape), np.eye(7), ("a", "b"), True, mask, ~mask, [(0, 0, 9999, 2)])
        assert render.panel(full, title="t").dtype == np.uint8

    def test_outlines_lie_on_the_edges_of_mask_and_box(self):
        mask = np.zeros((48, 48), bool)
        mask[12:36, 12:36] = True
        for outlined in (Tile(flat(0), masks=mask), Tile(flat(0), boxes=[(12, 12, 36, 36)])):
            green = (render.panel(outlined, size=480, legend=False) == render.tiles.TARGET_COLOR).all(axis=2)
            rows, columns = np.nonzero(green)
            margin = render.page.Style(1.5).margin
            assert rows.min() - margin == pytest.approx(120, abs=1)
            assert rows.max() - margin == pytest.approx(360, abs=1)
            assert columns.max() - columns.min() == pytest.approx(240, abs=2)
            assert green.sum() < 4 * 245  # a line one pixel wide, nothing filled

    def test_an_invalid_map_is_marked_on_the_plain_picture(self):
        plain = render.panel(Tile(flat(200)))
        marked = render.panel(Tile(flat(200), np.zeros((7, 7))))
        changed = (plain != marked).any(axis=2)
        assert 0 < changed.mean() < 0.05
        np.testing.assert_array_equal(plain[:100], marked[:100])

    def test_a_wrong_prediction_has_a_red_cross_before_it(self, heatmap):
        def red(wrong):
            panel = render.panel(Tile(flat(60), heatmap, ("cat · predicted dog",), wrong=wrong), legend=False)
            return np.argwhere((panel == render.page.WRONG).all(axis=2))

        assert len(red(False)) == 0
        cross = red(True)
        assert len(cross) > 10
        assert np.ptp(cross, axis=0).max() < 10  # the words are dark

    @pytest.mark.parametrize("words", HOSTILE)
    def test_words_never_change_its_size(self, heatmap, words):
        usual = render.panel(Tile(flat(9), heatmap, ("cat", "87 %")), title="gradcam")
        hostile = render.panel(Tile(flat(9), heatmap, (words, words)), title=words or "x")
        assert hostile.shape == usual.shape
        margin = render.page.Style().margin - 2  # the hairline frame, and a letter's overhang
        assert (hostile[:, -margin:] == 255).all()
        assert (hostile[:, :margin] == 255).all()

    def test_size_is_checked(self):
        with pytest.raises(ValueError, match=r"size.*32 to 4096.*got 8"):
            render.panel(Tile(flat(9)), size=8)


class TestContactSheet:
    def test_holds_every_tile_once(self):
        sheet = render.contact_sheet([Tile(flat(value)) for value in range(10, 17)], title="epoch 3", tile_size=100)
        for value in range(10, 17):
            rows, columns = np.nonzero((sheet == value).all(axis=2))
            assert len(rows) == 100 * 100
            assert (rows.max() - rows.min(), columns.max() - columns.min()) == (99, 99)

    def test_columns_are_bounded_by_width(self):
        sheet = render.contact_sheet([Tile(flat(9, 8, 8))] * 60, columns=60, tile_size=160)
        assert sheet.shape[1] <= 4000

    @pytest.mark.parametrize("words", HOSTILE)
    def test_words_never_change_its_size(self, heatmap, words):
        usual = render.contact_sheet([Tile(flat(9), heatmap, ("cat",))] * 3, title="gradcam")
        assert render.contact_sheet([Tile(flat(9), heatmap, (words,))] * 3, title=words or "x").shape == usual.shape

    def test_needs_tiles_and_columns(self):
        with pytest.raises(ValueError, match="at least one tile"):
            render.contact_sheet([])
        with pytest.raises(ValueError, match="columns"):
            render.contact_sheet([Tile(flat(9))], columns=0)


def strip(epochs: int, **options) -> np.ndarray:
    """Two probe images, grey 10 + epoch and 100 + epoch, so that every tile can be found again."""
    rows = [[Tile(flat(base + epoch)) for epoch in range(epochs)] for base in (10, 100)]
    rows[1][1] = None
    labels = {"row_labels": ["first", "second"], "column_labels": [f"epoch {epoch}" for epoch in range(epochs)]}
    return render.film_strip(rows, **(labels | options))


def count(picture: np.ndarray, value: int) -> int:
    return int((picture == value).all(axis=2).sum())


class TestFilmStrip:
    def test_plain_picture_first_then_the_epochs_and_a_gap_for_none(self):
        picture = strip(4, tile_size=96)
        assert [count(picture, 10 + epoch) // 96**2 for epoch in range(4)] == [2, 1, 1, 1]
        assert [count(picture, 100 + epoch) // 96**2 for epoch in range(4)] == [2, 0, 1, 1]
        rows, columns = np.nonzero((picture == render.page.EMPTY).all(axis=2))
        above = np.nonzero((picture == 11).all(axis=2))[1]
        assert abs(int(columns.min()) - int(above.min())) <= 1  # the gap stands in its own epoch's column
        assert len(rows) > 80 * 80

    def test_the_first_column_has_no_heatmap(self, heatmap):
        picture = render.film_strip([[Tile(flat(77), heatmap)]], row_labels=[""], column_labels=["epoch 0"])
        assert count(picture, 77) == 96 * 96

    def test_too_many_epochs_are_thinned_and_it_says_so(self, monkeypatch):
        said = []
        monkeypatch.setattr(render.sheets.Page, "words", lambda page, corner, words, width: said.append(words))
        picture = strip(60, tile_size=150)
        shown = [words for words in said if words.startswith("epoch ")]
        assert picture.shape[1] <= 4000
        assert (shown[0], shown[-1]) == ("epoch 0", "epoch 59")
        assert f"showing {len(shown)} of 60 epochs" in said
        steps = np.diff([int(words.split()[1]) for words in shown])
        assert set(steps) <= {2, 3}
        assert count(picture, 69) == 150**2

    def test_the_widest_tiles_still_show_first_and_last(self):
        picture = strip(30, tile_size=512)
        assert picture.shape[1] <= 4000
        assert count(picture, 10) == 2 * 512**2
        assert count(picture, 39) == 512**2

    def test_all_gaps(self):
        render.film_strip([[None, None]], row_labels=["x"], column_labels=["0", "1"])

    @pytest.mark.parametrize("words", HOSTILE[:-1])
    def test_words_never_change_its_size(self, words):
        usual = strip(3, title="gradcam", note="worst drift first")
        hostile = strip(3, title=words, note=words, row_labels=[words] * 2, column_labels=[words] * 3)
        assert hostile.shape == usual.shape

    def test_rows_and_labels_must_agree(self):
        with pytest.raises(ValueError, match="1 labels for 2 rows"):
            strip(3, row_labels=["one"])
        with pytest.raises(ValueError, match="row 0 has 3 tiles for 2 column labels"):
            strip(3, column_labels=["0", "1"])
        with pytest.raises(ValueError, match="0 rows"):
            render.film_strip([], row_labels=[], column_labels=["0"])


class TestText:
    @pytest.mark.parametrize("words", HOSTILE)
    @pytest.mark.parametrize("width", [0, 5, 40, 90, 400])
    def test_fits_the_room(self, words, width):
        face = text.font(12)
        assert face.getlength(text.shorten(words, face, width)) <= width
        lines = text.wrap(words, face, width, 3)
        assert len(lines) <= 3
        assert all(face.getlength(line) <= width for line in lines)

    def test_short_words_stay_as_they_are(self):
        assert text.shorten("cat · predicted dog", text.font(12), 300) == "cat · predicted dog"

    def test_only_the_longest_part_is_shortened(self):
        fitted = text.shorten("gradcam · features.denseblock4.denselayer16.conv2 · epoch 12", text.font(12), 220)
        first, layer, last = fitted.split(" · ")
        assert (first, last) == ("gradcam", "epoch 12")
        assert layer.startswith("fea")
        assert "…" in layer

    @pytest.mark.parametrize(("size", "height"), [(12, 17), (15, 20), (18, 26), (160, 227)])
    @pytest.mark.parametrize("words", ["cat · predicted dog", "jÅgq|", "", "f"])
    def test_a_stamp_is_the_line_as_pillow_writes_it_and_made_once(self, words, size, height):
        face = text.font(size)
        plain = Image.new("RGB", (2000, 400), "white")
        ImageDraw.Draw(plain).text((80, 80 + height / 2), words, font=face, fill=(192, 22, 48), anchor="lm")
        stamped = Image.new("RGB", (2000, 400), "white")
        stamp = text.written(words, face, height)
        margin = (stamp.height - height) // 2
        stamped.paste((192, 22, 48), (80 - margin, 80 - margin), stamp)
        np.testing.assert_array_equal(np.asarray(plain), np.asarray(stamped))
        made = text.written.cache_info().misses
        assert text.written(words, face, height) is text.written(words, face, height)
        assert text.written.cache_info().misses == made

    def test_wrap_breaks_at_separators_without_leaving_them(self):
        assert text.wrap("digit 3 · drift 0.80", text.font(12), 60, 4) == ["digit 3", "drift 0.80"]

    def test_what_the_font_lacks_is_spelled_another_way(self):
        assert text.printable("Müller\n straße – 日") == "Muller strasse - ?"


class TestPng:
    def test_bytes_hold_the_same_pixels(self, image):
        with Image.open(io.BytesIO(render.encode_png(image))) as opened:
            assert opened.format == "PNG"
            np.testing.assert_array_equal(np.asarray(opened), image)

    def test_write_replaces_and_leaves_nothing_beside(self, tmp_path, image):
        path = tmp_path / "look.png"
        render.write_png(path, flat(0))
        render.write_png(str(path), image)
        with Image.open(path) as opened:
            np.testing.assert_array_equal(np.asarray(opened), image)
        assert [entry.name for entry in tmp_path.iterdir()] == ["look.png"]

    def test_a_failed_write_keeps_the_old_file(self, tmp_path, image, monkeypatch):
        path = tmp_path / "look.png"
        render.write_png(path, image)
        before = path.read_bytes()

        def fail(*_):
            raise OSError("disk full")

        monkeypatch.setattr(os, "replace", fail)
        with pytest.raises(OSError, match="disk full"):
            render.write_png(path, flat(0))
        assert path.read_bytes() == before
        assert [entry.name for entry in tmp_path.iterdir()] == ["look.png"]

    def test_refuses_what_is_no_picture(self, tmp_path):
        with pytest.raises(TypeError, match="float32"):
            render.write_png(tmp_path / "x.png", np.zeros((4, 4, 3), np.float32))
        assert not list(tmp_path.iterdir())


def test_a_missing_libgl_names_the_remedy(monkeypatch):
    monkeypatch.setitem(sys.modules, "cv2", None)  # what `import cv2` then raises is an ImportError
    with pytest.raises(ImportError, match=r"pip uninstall opencv-python && pip install opencv-python-headless"):
        runpy.run_path(str(Path(render.__file__).with_name("_cv2.py")))


def test_cv2_is_imported_nowhere_else():
    package = Path(render.__file__).parents[1]
    importing = re.compile(r"^\s*(import cv2|from cv2)", re.MULTILINE)
    assert [path.name for path in package.rglob("*.py") if importing.search(path.read_text("utf-8"))] == ["_cv2.py"]
