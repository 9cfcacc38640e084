"""What a colleague sees in ten seconds: verdict, what lies under the focus, what the prediction follows."""

import base64
import io
from dataclasses import replace

import numpy as np
import pytest
from driving import place, settle, show_images
from PIL import Image

from cam_callbacks.compare import write_page
from cam_callbacks.compare.verdict import verdict
from cam_callbacks.records import Alert, Judged
from cam_engine.render import under_focus

pytestmark = pytest.mark.browser


def strips(page, run):
    """A run's rows of crops, (H, W, 3) each."""
    page.wait_for_timeout(200)
    settle(page)
    drawn = page.eval_on_selector_all(f".strip[data-run='{run}']", "all => all.map(it => it.toDataURL())")
    pictures = [Image.open(io.BytesIO(base64.b64decode(address.partition(",")[2]))) for address in drawn]
    return [np.asarray(picture.convert("RGB")) for picture in pictures]


def test_verdict_and_wall_are_on_the_first_screen(two, runs, open_page):
    page = open_page(two, width=1280, height=720)
    said = page.locator(".verdict").all_inner_texts()
    for run, text in zip(runs, said, strict=True):
        assert verdict(run, runs) in text.replace("\u00a0", " ").replace("\n", "")
    last = page.locator(".strip").last.bounding_box()
    assert last["y"] + last["height"] <= 720
    assert page.locator(".bar").bounding_box()["height"] <= 64


def test_the_wall_shows_unblended_pixels_under_the_focus(two, runs, open_page):
    """The crops of each run are those that Python cuts out, a row a class, and the same image stands at the same place."""
    page = open_page(two)
    names = page.locator(".rowname").all_inner_texts()
    off = []
    for index, run in enumerate(runs):
        pictures, labels = run.probe["pictures"], run.probe["labels"]
        maps = run.records[-1].maps["gradcam", "features"]
        for name, strip in zip(names, strips(page, index), strict=True):
            side = strip.shape[0]
            crops = [under_focus(pictures[i], maps[i]) for i in np.flatnonzero(labels == int(name))]
            wanted = [
                np.asarray(Image.fromarray(crop).resize((side, side), Image.Resampling.BILINEAR)) for crop in crops
            ]
            for left in range(0, len(wanted) * (side + 2), side + 2):
                shown = strip[:, left : left + side].astype(float)
                off.append(min(np.abs(shown - crop).mean() for crop in wanted))
    # Of 255: two ways to enlarge 18 pixels. The page holds a map in 255 steps, and cells that are then alike may move a window.
    assert len(off) == 40 and np.mean(np.array(off) < 4) >= 0.9


def test_the_wall_follows_slider_and_method_and_opens_an_image(two, open_page):
    page = open_page(two)
    late = strips(page, 1)
    page.locator(".slider").focus()
    page.keyboard.press("Home")
    early = strips(page, 1)
    assert any((a != b).any() for a, b in zip(early, late, strict=True))
    page.get_by_label("Method", exact=True).select_option("eigencam")
    assert "eigencam" in page.locator(".wall p").inner_text()
    page.locator(".strip").first.click(position={"x": 5, "y": 5})
    assert page.locator("dialog[open] .matrix .panel").count() == 4


def test_classes_beyond_twelve_fold(runs, tmp_path, open_page):
    rows = np.repeat(np.arange(20), 3)
    probe = {name: array[rows] for name, array in runs[0].probe.items()} | {"labels": np.arange(60) // 3}
    known = runs[0].manifest["probe"] | {"n": 60, "ids": list(map(str, range(60))), "groups": None, "class_names": None}
    last = runs[0].records[-1]
    record = replace(
        last, maps={k: m[rows] for k, m in last.maps.items()}, per_image={k: v[rows] for k, v in last.per_image.items()},
        predictions=last.predictions[rows], confidences=last.confidences[rows], exchange_pairs=None, exchanged={},
    )  # fmt: skip
    run = replace(runs[0], probe=probe, records=[record], manifest=runs[0].manifest | {"probe": known})
    page = open_page(write_page([run], tmp_path / "page.html"))
    assert page.locator(".strip").count() == 12
    page.get_by_role("button", name="show 8 more classes").click()
    assert page.locator(".strip").count() == 20


def test_what_the_prediction_follows_is_shown_with_its_interval(two, runs, open_page):
    page = open_page(two)
    bars = page.locator(".follow[data-part='background'] .bar-of")
    for run, bar in zip(runs, bars.all(), strict=True):
        counted = run.records[-1].aggregates["follows_background"]
        said = f"{run.name}: {counted['mean']:.0%}".replace("%", " %")
        assert bar.get_attribute("aria-label").startswith(said)
        assert f"{counted['n']:.0f} pairs" in bar.get_attribute("aria-label")
    followed = int((page.locator(".mixed[data-run='1'] .exchange")).count())
    assert 0 < followed <= 6
    assert page.locator(".mixed[data-run='1'] .exchange").first.locator("img").count() == 3


def test_a_method_that_shows_nothing_carries_the_remark(runs, tmp_path, open_page):
    remark = Judged(
        "map_untrusted", "gradcam", "features", "remark", np.nan, np.nan, "focus carries no more than a random place"
    )
    silent = Judged("off_target", "gradcam", "features", "cannot judge", np.nan, 2.0, "the focus has not settled")
    record = replace(runs[0].records[-1], judged=(*runs[0].records[-1].judged, remark, silent))
    page = open_page(write_page([replace(runs[0], records=[*runs[0].records[:-1], record])], tmp_path / "page.html"))
    assert "gradcam (not to be trusted)" in page.get_by_label("Method", exact=True).inner_text()
    assert "do not show what decides" in page.locator(".wall p").inner_text()
    page.locator(".more > summary").click()
    assert "off target cannot be judged: the focus has not settled" in page.locator(".unjudged").inner_text()


def test_an_alert_leads_to_its_images(runs, tmp_path, open_page):
    def raised(record):
        alert = Alert(
            "off_target", "eigencam", "features", record.look, record.epoch, 1, 1, record.epoch == 2, "0.4", (), "Look."
        )
        return replace(record, alerts=(alert,) if record.epoch >= 2 else ())

    run = replace(runs[1], records=[raised(record) for record in runs[1].records])
    page = open_page(write_page([runs[0], run], tmp_path / "page.html"))
    assert page.get_by_label("Sort", exact=True).input_value() == "target"
    tick = page.locator(".onsets i")
    assert tick.count() == 1 and "off target (eigencam) since epoch 2" in tick.get_attribute("title")
    page.locator(".more > summary").click()
    page.locator(".alerts .link").click()
    assert page.get_by_label("Method", exact=True).input_value() == "eigencam"
    assert place(page) == "epoch 2 of 5"
    assert page.locator("section.images").bounding_box()["y"] < 100


def test_accuracy_against_focus_has_a_trail_a_run(two, runs, open_page):
    page = open_page(two)
    label = page.locator(".trail").get_attribute("aria-label")
    for run in runs:
        focus = run.records[-1].metrics["cam/on_target_enrichment/gradcam"]
        assert f"{run.name} ends at {focus:.1f}× on the object" in label


def test_without_masks_the_page_says_so_and_offers_to_draw(runs, tmp_path, open_page):
    def bare(record):
        keep = lambda of: {k: v for k, v in of.items() if "target" not in k and "nuisance" not in k}  # noqa: E731
        return replace(record, metrics=keep(record.metrics), per_image=keep(record.per_image), alerts=(), judged=())

    run = replace(runs[0], records=[bare(r) for r in runs[0].records], probe={"pictures": runs[0].probe["pictures"]})
    page = open_page(write_page([run], tmp_path / "page.html"))
    assert "nobody knows without masks or boxes" in page.locator(".verdict").inner_text()
    page.locator(".trails").get_by_role("button", name="Draw boxes").click()
    assert page.locator(".annotator[open]").count() == 1


def test_cold_areas_stay_the_photograph_and_o_shows_the_original(two, runs, open_page):
    from driving import pixels, shown_images

    page = open_page(two, hash="#outlines=0&opacity=1&cells=1")
    show_images(page)
    image = shown_images(page)[1]
    page.evaluate("document.querySelectorAll('.cards canvas').forEach(it => (it.style.width = '48px'))")
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("ArrowRight")
    cells = runs[1].records[-1].maps["gradcam", "features"][image]
    cold = np.kron(cells <= cells.max() / 512, np.ones((4, 4), bool))
    picture = runs[1].probe["pictures"][image]
    assert cold.any() and (pixels(page, 1, image)[cold] == picture[cold]).all()
    assert (pixels(page, 1, image) != picture).any()
    page.keyboard.down("o")
    settle(page)
    assert (pixels(page, 1, image) == picture).all()
    page.keyboard.up("o")
    settle(page)
    assert (pixels(page, 1, image) != picture).any()


def test_the_mean_map_follows_the_filter(two, runs, open_page):
    from driving import pixels

    page = open_page(two, hash="#outlines=0")
    show_images(page)
    before = pixels(page, 0, -1)
    page.get_by_label("Class", exact=True).select_option("3")
    show_images(page)
    after = pixels(page, 0, -1)
    small = [np.asarray(Image.fromarray(it).resize((24, 24))).astype(int) for it in (before, after)]
    assert np.abs(small[0] - small[1]).max() > 20
    count = int((runs[0].probe["labels"] == 3).sum())
    assert page.locator(".card").first.locator(".about").inner_text() == f"mean of {count} images"
