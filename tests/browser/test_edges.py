"""Many runs, many looks, hostile names, and what is missing or damaged."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
from driving import choose, pixels, place, settle, show_images, shown_images

from cam_callbacks.compare import load_run, page_data, render_page, write_page

pytestmark = pytest.mark.browser


@pytest.mark.parametrize("width", [650, 1500])
@pytest.mark.parametrize("count", [1, 2, 10])
def test_it_fits_the_window(count, width, runs, tmp_path, open_page):
    many = [replace(runs[i % 2], name=f"run {i}, learning rate 1e-{i}") for i in range(count)]
    page = open_page(write_page(many, tmp_path / "page.html"), width=width)
    show_images(page)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.locator(".card").first.locator(".panel").count() == count
    tile = page.locator(".cards .panel canvas").first.bounding_box()
    assert 50 <= tile["width"] <= 260
    assert page.locator(".bar").bounding_box()["height"] <= 64


def test_more_than_ten_runs_open_with_ten(runs, tmp_path, open_page):
    many = [replace(runs[i % 2], name=f"run {i}") for i in range(12)]
    page = open_page(write_page(many, tmp_path / "page.html"))
    show_images(page)
    assert "the first 10 of 12 runs" in page.locator(".notes").inner_text()
    page.locator("section.summary").get_by_text("All numbers").click()
    assert page.locator("section.summary table").first.locator("tbody tr").count() == 12
    assert page.locator(".card").first.locator(".panel").count() == 10
    page.locator(".chips .chip", has_text="run 0").click()
    page.locator(".chips .chip", has_text="run 11").click()
    shown = page.locator(".card").first.locator(".panel").evaluate_all("all => all.map(it => Number(it.dataset.run))")
    assert shown == [*range(1, 10), 11]


HOSTILE = [
    '"><script>alert(1)</script>',
    "</script><img src=x onerror=alert(1)>",
    'it\'s "quoted" & <b>bold</b> 🦊',
    "../../etc/passwd/%2e%2e/",
    "مرحبا \u202e reversed",
    "y" * 500,
]


def test_hostile_names_are_shown_as_text(runs, tmp_path, open_page):
    def hostile(run, name):
        known = run.manifest["probe"]
        ids = [f"{HOSTILE[i % 6]} {i}" for i in range(known["n"])]
        probe = known | {"ids": ids, "class_names": (HOSTILE * 2)[:10], "groups": (HOSTILE * 4)[: known["n"]]}
        records = [replace(r, user_metrics={HOSTILE[1]: 0.5, HOSTILE[5]: r.epoch}) for r in run.records]
        return replace(
            run, name=name, manifest=run.manifest | {"probe": probe}, records=records, params={HOSTILE[0]: name}
        )

    page = open_page(
        write_page([hostile(runs[i % 2], name) for i, name in enumerate(HOSTILE)], tmp_path / "p.html"), width=650
    )
    show_images(page)
    assert page.locator("script").count() == 2
    assert page.locator("img:not(.exchange img), b:has-text('bold') b").count() == 0
    assert page.evaluate("document.documentElement.scrollWidth") <= 650
    assert HOSTILE[0] in page.locator(".chips").inner_text()
    assert HOSTILE[1] in page.locator("section.summary").inner_text()
    page.locator(".cards .panel").nth(7).click()
    assert page.locator("dialog[open]").bounding_box()["width"] <= 650


def test_records_without_pictures_are_drawn_on_grey(runs, tmp_path, open_page):
    bare = [replace(run, probe={k: v for k, v in run.probe.items() if k != "pictures"}) for run in runs]
    page = open_page(write_page(bare, tmp_path / "page.html"), hash="#opacity=0")
    show_images(page)
    assert "no pictures" in page.locator("section.images").inner_text()
    assert pixels(page, 0, shown_images(page)[1])[..., 0].std() > 10  # the map, whatever the opacity


def test_an_invalid_map_is_no_focus(runs, tmp_path, open_page):
    maps = {
        key: np.where(np.arange(len(value))[:, None, None] == 0, np.nan, value)
        for key, value in runs[0].records[-1].maps.items()
    }
    run = replace(runs[0], records=[*runs[0].records[:-1], replace(runs[0].records[-1], maps=maps)])
    page = open_page(write_page([run], tmp_path / "page.html"), hash="#sort=probe&outlines=0")
    show_images(page)
    panel = page.locator(".cards .panel[data-image='0']")
    assert "no focus" in panel.get_attribute("aria-label")


def test_runs_of_different_probes_are_shown_one_probe_at_a_time(runs, tmp_path, open_page):
    known = runs[1].manifest["probe"] | {"fingerprint": "other"}
    other = replace(runs[1], manifest=runs[1].manifest | {"probe": known})
    page = open_page(write_page([runs[0], other], tmp_path / "page.html"))
    assert "Different probes" in page.locator("header.top").inner_text()
    assert page.locator(".card").first.locator(".panel").count() == 1
    choose(page, "Probe", "1")
    assert page.locator(".card .panel").first.get_attribute("data-run") == "1"


def test_a_thousand_looks_of_256_images(runs, tmp_path, open_page):
    run = runs[0]
    rows = np.resize(np.arange(len(run.probe["labels"])), 256)
    probe = {name: array[rows] for name, array in run.probe.items()}
    known = run.manifest["probe"] | {"ids": [f"image {i}" for i in range(256)], "n": 256, "groups": None}

    def longer(i):
        r = run.records[i % len(run.records)]
        return replace(
            r, look=i, epoch=i, maps={k: m[rows] for k, m in r.maps.items()},
            per_image={k: v[rows] for k, v in r.per_image.items()},
            predictions=r.predictions[rows], confidences=r.confidences[rows],
        )  # fmt: skip

    long = replace(run, records=[longer(i) for i in range(1000)], probe=probe, manifest=run.manifest | {"probe": known})
    path = write_page([long], tmp_path / "page.html")
    assert path.stat().st_size < 50 * 2**20  # what MLflow shows
    page = open_page(path)
    show_images(page)
    assert page.locator(".card").count() == 257
    assert "of 1000 epochs" in page.locator(".notes").inner_text()
    assert (
        page.evaluate("[...document.querySelectorAll('.cards canvas')].filter(it => it.width > 1).length") < 120
    )  # only those in sight
    page.keyboard.press("ArrowLeft")
    assert place(page) != "epoch 999 of 999"


def test_what_cannot_be_read_is_said_and_the_rest_is_shown(folders, tmp_path, open_page):
    half = tmp_path / "half"
    shutil.copytree(folders[1], half)
    (half / "look-000003.npz").write_bytes(b"PK\x03\x04 cut off")
    (half / "look-000005.npz").unlink()
    (half / ".look-000005.npz.77.tmp").write_bytes(b"being written")
    page = open_page(write_page([load_run(folders[0]), load_run(half)], tmp_path / "page.html"), hash="#place=3")
    notes = page.locator(".notes").inner_text()
    assert "look 3 is left out" in notes and "end at different epochs" in notes
    show_images(page)
    assert page.locator(".cards .panel[data-run='1']").first.inner_text() == "no look at epoch 3"
    page.keyboard.press("ArrowLeft")
    settle(page)
    assert "gap" not in page.locator(".cards .panel[data-run='1']").first.get_attribute("class")


def test_one_look_of_one_image(runs, tmp_path, open_page):
    run, first = runs[0], runs[0].records[0]
    known = run.manifest["probe"] | {"n": 1, "ids": ["only"], "groups": ["left"]}
    record = replace(
        first, maps={k: m[:1] for k, m in first.maps.items()}, t_maps={}, alerts=(),
        per_image={k: v[:1] for k, v in first.per_image.items()},
        predictions=first.predictions[:1], confidences=first.confidences[:1],
    )  # fmt: skip
    probe = {name: array[:1] for name, array in run.probe.items()}
    one = replace(run, records=[record], probe=probe, manifest=run.manifest | {"probe": known})
    page = open_page(write_page([one], tmp_path / "page.html"), width=650)
    show_images(page)
    assert shown_images(page) == [0]
    page.keyboard.press("ArrowRight")
    assert place(page) == "epoch 0 of 0"
    page.locator(".cards .panel").click()
    assert page.locator("dialog[open] .outcome").count() == 1


def test_data_of_another_format_are_refused_in_words(runs, tmp_path, chromium):
    path = tmp_path / "page.html"
    path.write_text(render_page(json.loads(json.dumps(page_data(runs))) | {"format": 99}), encoding="utf-8")
    page = chromium.new_page()
    page.goto(path.as_uri())
    assert "format 1, not 99" in page.get_by_role("alert").inner_text()
    page.close()


def test_the_page_of_one_folder_is_what_report_shows(folders, tmp_path, open_page):
    page = open_page(write_page([load_run(folders[0])], tmp_path / "page.html"))
    assert page.locator("h1").inner_text() == "clean"
