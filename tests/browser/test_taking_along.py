"""What a person takes along from the page: a link, a picture, numbers, an animation, boxes, paper."""

import csv
import io
import json

import numpy as np
import pytest
from driving import place, shown_images
from PIL import Image

from cam_callbacks import ProbeSet
from cam_callbacks.cli import main

pytestmark = pytest.mark.browser


def downloaded(page, click):
    with page.expect_download() as waiting:
        click()
    return waiting.value.path().read_bytes()


def test_a_link_holds_the_view_and_the_part_in_sight(two, open_page):
    page = open_page(two)
    page.keyboard.press("ArrowLeft")
    page.get_by_role("button", name="Curves", exact=True).click()
    page.evaluate("document.querySelectorAll('.sharing button')[1].click()")
    page.wait_for_function("() => location.hash.includes('section=curves')")
    again = open_page(two, hash=page.evaluate("location.hash"))
    assert place(again) == "epoch 4 of 5"
    again.wait_for_function(
        "() => Math.abs(document.querySelector('section.curves').getBoundingClientRect().top) < 120"
    )


def test_the_part_stays_in_sight_while_what_is_above_it_grows(two, open_page):
    page = open_page(two, hash="#section=curves")
    top = "document.querySelector('section.curves').getBoundingClientRect().top"
    page.wait_for_function(f"() => Math.abs({top}) < 120")
    page.evaluate("document.querySelector('section.first').style.paddingBottom = '3000px'")
    page.wait_for_function(f"() => Math.abs({top}) < 120")
    page.mouse.move(600, 500)
    page.mouse.wheel(0, -400)
    page.wait_for_function(f"() => {top} > 300")
    page.evaluate("document.querySelector('section.first').style.paddingBottom = '6000px'")
    page.wait_for_timeout(300)
    assert page.evaluate(top) > 300  # a hand has moved the page: it stays where that left it


def test_the_picture_shows_verdict_wall_and_curves(two, open_page):
    page = open_page(two)
    page.evaluate("() => { navigator.clipboard.write = () => Promise.reject(new Error('no')); }")
    page.wait_for_timeout(300)
    data = downloaded(page, page.get_by_role("button", name="Copy picture").click)
    picture = Image.open(io.BytesIO(data))
    assert picture.format == "PNG" and picture.width >= 1500
    assert len(np.unique(np.asarray(picture.convert("RGB")).reshape(-1, 3), axis=0)) > 2000


def test_the_csv_is_a_row_for_each_image_and_run(two, runs, open_page):
    page = open_page(two)
    rows = list(csv.DictReader(io.StringIO(downloaded(page, page.get_by_role("button", name="CSV").click).decode())))
    ids = runs[0].manifest["probe"]["ids"]
    assert len(rows) == 2 * len(ids)
    for row in rows:
        record = runs[["clean", "shortcut"].index(row["run"])].records[-1]
        image = ids.index(row["image"])
        assert float(row["nuisance_enrichment"]) == pytest.approx(
            record.per_image["nuisance_enrichment/gradcam"][image]
        )
        assert float(row["confidence"]) == pytest.approx(record.confidences[image])


def test_the_gif_has_a_frame_for_each_place(two, open_page):
    page = open_page(two, hash="#detail=3")
    page.wait_for_timeout(300)
    gif = Image.open(io.BytesIO(downloaded(page, page.get_by_role("button", name="GIF").click)))
    assert gif.format == "GIF" and gif.n_frames == 6
    frames = []
    for frame in range(6):
        gif.seek(frame)
        frames.append(np.asarray(gif.convert("RGB")).astype(int))
    assert (frames[0] != frames[5]).any()
    shown = page.eval_on_selector("dialog[open] .panel canvas", "it => it.toDataURL()")
    assert shown.startswith("data:image/png")


def test_search_finds_ids_and_classes(two, runs, open_page):
    page = open_page(two)
    wanted = runs[0].manifest["probe"]["ids"][4]
    box = page.get_by_label("Search", exact=True)
    box.fill(wanted.upper())
    assert shown_images(page) == [4]
    box.fill("no such image")
    assert shown_images(page) == []
    assert "No image passes the filter" in page.locator("section.images").inner_text()


def draw(page, x1, y1, x2, y2):
    """Drag from one place to another, in shares of the picture."""
    box = page.locator(".drawn-on").bounding_box()
    page.mouse.move(box["x"] + x1 * box["width"], box["y"] + y1 * box["height"])
    page.mouse.down()
    page.mouse.move(box["x"] + x2 * box["width"], box["y"] + y2 * box["height"], steps=3)
    page.mouse.up()


def test_boxes_are_drawn_saved_and_taken_by_a_probe(two, runs, open_page, tmp_path):
    page = open_page(two)
    page.get_by_role("button", name="Draw boxes").first.click()
    draw(page, 0.25, 0.25, 0.75, 0.5)
    draw(page, 0.1, 0.1, 0.9, 0.9)
    page.keyboard.press("u")
    page.keyboard.press("2")
    draw(page, 0.0, 0.0, 0.125, 0.125)
    page.keyboard.press("Enter")
    page.keyboard.press("1")
    draw(page, 0.5, 0.5, 1.0, 1.0)
    assert "image 2 of 20, 2 marked" in page.locator(".annotator").inner_text()
    file = tmp_path / "boxes.json"
    file.write_bytes(downloaded(page, page.get_by_role("button", name="Save boxes.json").click))
    ids = runs[0].manifest["probe"]["ids"]
    import torch

    probe = ProbeSet(torch.zeros(20, 3, 48, 48), ids=ids, boxes=str(file))
    assert np.allclose(probe.boxes[0], [[12, 12, 36, 24]], atol=0.5)
    assert np.allclose(probe.boxes[1], [[24, 24, 48, 48]], atol=0.5)
    assert len(probe.boxes[2]) == 0
    assert probe.nuisance[0, :6, :6].all() and probe.nuisance[0].sum() <= 49 and not probe.nuisance[1:].any()


def test_annotate_opens_a_page_to_draw_on(folders, tmp_path, chromium, capsys):
    path = tmp_path / "annotate.html"
    assert main(["annotate", str(folders[0]), "-o", str(path), "--no-open"]) == 0
    assert str(path) in capsys.readouterr().out
    page = chromium.new_page()
    errors = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.goto(path.as_uri())
    page.wait_for_selector(".annotator[open]")
    draw(page, 0.25, 0.25, 0.5, 0.5)
    content = json.loads(downloaded(page, lambda: page.keyboard.press("s")))
    assert content["size"] == [48, 48] and len(content["images"]) == 1
    page.close()
    assert errors == []


def test_paper_gets_the_worst_images_painted(two, open_page):
    page = open_page(two)
    page.wait_for_timeout(500)
    page.emulate_media(media="print")
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    painted = page.eval_on_selector_all(
        ".print-cards canvas",
        "all => all.map(it => it.getContext('2d').getImageData(0, 0, it.width, it.height).data.some(v => v > 0))",
    )
    assert len(painted) == 24 and all(painted)
    assert page.locator(".verdict").first.is_visible() and page.locator(".strip").first.is_visible()
    assert not page.locator("section.images").is_visible()
    assert page.locator(".verdict").first.bounding_box()["y"] < 300
    page.evaluate("dispatchEvent(new Event('afterprint'))")
    assert page.locator(".print-cards canvas").count() == 0
