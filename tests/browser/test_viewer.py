"""The page used as a person uses it."""

import base64
import http.server
import io
import json
import re
import shutil
import threading
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from cam_callbacks.compare import load_run, page_data, render_page, write_page
from cam_engine.metrics import jensen_shannon

pytestmark = pytest.mark.browser

EPOCHS = 6


def place(page):
    return page.locator(".bar .where").inner_text()


def shown_images(page):
    """Indices of the probe images, in the order of the page; −1 is the mean of all."""
    return page.eval_on_selector_all(".card", "cards => cards.map(card => Number(card.dataset.image))")


def pixels(page, run, image):
    """A panel's canvas as (H, W, 3) uint8."""
    canvas = f".cards .panel[data-run='{run}'][data-image='{image}'] canvas"
    address = page.eval_on_selector(canvas, "canvas => canvas.toDataURL()")
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(address.partition(",")[2]))).convert("RGB"))


def choose(page, label, value):
    page.get_by_label(label, exact=True).select_option(value)


def settle(page):
    """Wait until what has been asked for is drawn."""
    page.evaluate("() => new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")


def show_images(page):
    page.get_by_role("button", name="Images", exact=True).click()
    page.wait_for_function("() => document.querySelector('.cards .panel canvas').width > 1")
    page.wait_for_timeout(150)
    settle(page)


def test_the_summary_is_read_without_touching_anything(two, runs, open_page):
    page = open_page(two)
    text = page.locator("section.summary").inner_text()
    last = runs[1].records[-1]
    assert f"{last.metrics['cam/nuisance_enrichment/gradcam']:.3f}" in text
    assert f"{last.user_metrics['val_acc']:.3f}" in text
    apart = jensen_shannon(*[run.records[-1].maps["gradcam", "features"] for run in runs])
    assert f"{np.nanmean(apart):.3f}" in page.locator(".distances").inner_text()
    assert "Same probe" in page.locator("header.top").inner_text()


def test_scrubbing_moves_all_panels_and_curves(two, open_page):
    page = open_page(two)
    show_images(page)
    assert place(page) == "epoch 5 of 5"
    image = shown_images(page)[1]
    before = [pixels(page, run, image) for run in (0, 1)]
    lines = page.locator(".plot .now")
    was = [lines.nth(i).bounding_box()["x"] for i in range(lines.count())]

    page.locator(".slider").focus()
    page.keyboard.press("Home")
    settle(page)

    assert place(page) == "epoch 0 of 5"
    for run in (0, 1):
        assert (pixels(page, run, image) != before[run]).any()
    assert all(lines.nth(i).bounding_box()["x"] < x - 20 for i, x in enumerate(was))
    assert "epoch 0" in page.locator(".plot .readout").first.inner_text()
    page.keyboard.press("ArrowRight")
    assert place(page) == "epoch 1 of 5"


def test_arrows_and_play_work_from_anywhere(two, open_page):
    page = open_page(two)
    page.locator("h1").click()
    page.keyboard.press("ArrowLeft")
    assert place(page) == "epoch 4 of 5"
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    assert place(page) == "epoch 5 of 5"
    page.get_by_role("button", name="play").click()
    page.wait_for_function("() => document.querySelector('.where').textContent === 'epoch 2 of 5'")
    page.get_by_role("button", name="pause").click()
    stopped = place(page)
    page.wait_for_timeout(700)
    assert place(page) == stopped


def test_a_look_that_a_run_lacks_is_a_gap(gapped, open_page):
    page = open_page(gapped, hash="#place=2")
    show_images(page)
    panel = page.locator(".cards .panel[data-run='1']").first
    assert panel.inner_text() == "no look at epoch 2"
    assert "gap" in panel.get_attribute("class")
    assert "gap" not in page.locator(".cards .panel[data-run='0']").first.get_attribute("class")
    page.keyboard.press("ArrowRight")
    settle(page)
    assert "gap" not in panel.get_attribute("class")
    readout = page.locator(".plot[data-metric='entropy'] .readout")
    assert "–" not in readout.inner_text()
    page.keyboard.press("ArrowLeft")
    assert re.search(r"\d\.\d+\s*–", readout.inner_text())


def test_a_click_on_a_curve_moves_the_slider(two, open_page):
    page = open_page(two)
    over = page.locator(".plot[data-metric='on_target_enrichment'] .u-over")
    over.scroll_into_view_if_needed()
    box = over.bounding_box()
    page.mouse.move(box["x"] + box["width"] * 2 / 5 + 3, box["y"] + box["height"] / 2)
    page.mouse.click(box["x"] + box["width"] * 2 / 5 + 3, box["y"] + box["height"] / 2)
    assert place(page) == "epoch 2 of 5"


def test_images_are_sorted_and_filtered(two, runs, open_page):
    page = open_page(two)
    last = [run.records[-1] for run in runs]
    drift = np.fmax.reduce([r.per_image["drift_ref/gradcam"] for r in last])
    assert shown_images(page) == [-1, *np.argsort(-drift, kind="stable")]

    choose(page, "Sort", "target")
    target = np.fmin.reduce([r.per_image["on_target_enrichment/gradcam"] for r in last])
    assert shown_images(page) == [-1, *np.argsort(target, kind="stable")]

    choose(page, "Sort", "runs")
    apart = jensen_shannon(*[r.maps["gradcam", "features"] for r in last])
    order = np.array(shown_images(page)[1:])
    assert (np.diff(apart[order]) < 0.01).all()  # in 8 bits

    labels = runs[0].probe["labels"]
    choose(page, "Filter", "wrong")
    wrong = set(np.flatnonzero(np.any([r.predictions != labels for r in last], axis=0)))
    assert set(shown_images(page)[1:]) == wrong

    choose(page, "Filter", "differ")
    differ = set(np.flatnonzero(last[0].predictions != last[1].predictions))
    assert set(shown_images(page)[1:]) == differ

    choose(page, "Filter", "all")
    choose(page, "Class", "3")
    assert set(shown_images(page)[1:]) == set(np.flatnonzero(labels == 3))


def test_predictions_that_flipped_since_the_reference(two, runs, open_page):
    page = open_page(two, hash="#filter=flipped")
    flipped = set()
    for run in runs:
        reference = run.records[run.reference("gradcam", "features")["look"]]
        flipped |= set(np.flatnonzero(reference.predictions != run.records[-1].predictions))
    assert set(shown_images(page)[1:]) == flipped


def test_images_keep_their_places_while_the_slider_moves(two, runs, open_page):
    page = open_page(two)
    before = shown_images(page)
    page.locator("h1").click()
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("ArrowLeft")
    assert shown_images(page) == before
    page.get_by_role("button", name="sort by the epoch shown").click()
    drift = np.fmax.reduce([run.records[3].per_image["drift_ref/gradcam"] for run in runs])
    assert shown_images(page) == [-1, *np.argsort(-drift, kind="stable")]


def test_the_difference_to_a_run_is_centred_at_zero(two, runs, open_page):
    page = open_page(two)
    choose(page, "Show", "run:0")
    page.get_by_label("Cells").check()
    page.get_by_label("Outlines").uncheck()
    show_images(page)
    now = [run.records[-1].maps["gradcam", "features"].mean(0) for run in runs]
    shares = [run.records[-1].maps["gradcam", "features"] for run in runs]
    shares = [m / m.sum((1, 2), keepdims=True) for m in shares]
    change = shares[1].mean(0) - shares[0].mean(0)
    assert now[0].shape == (12, 12)

    drawn = pixels(page, 1, -1).astype(int)
    side = drawn.shape[0]
    centres = ((np.arange(12) + 0.5) * side / 12).astype(int)
    red_minus_blue = (drawn[..., 0] - drawn[..., 2])[np.ix_(centres, centres)]
    strong = np.abs(change) > 0.1 * np.abs(change).max()
    assert strong.any() and (np.sign(red_minus_blue[strong]) == np.sign(change[strong])).all()
    faint = np.abs(change) < 0.004 * np.abs(change).max()
    assert (np.abs(red_minus_blue[faint]) <= 6).all()
    image = shown_images(page)[1]
    jsd = jensen_shannon(*[run.records[-1].maps["gradcam", "features"] for run in runs])[image]
    assert page.locator(f".cards .panel[data-run='1'][data-image='{image}'] .figures").inner_text() in (
        f"JSD {jsd + d:.3f}" for d in (-0.001, 0, 0.001)
    )


def test_the_difference_to_an_epoch_vanishes_there(two, open_page):
    page = open_page(two, hash="#place=3")
    choose(page, "Show", "epoch:0")
    page.get_by_role("button", name="subtract epoch 3").click()
    show_images(page)
    panel = page.locator(".cards .panel .figures").nth(2)
    assert panel.inner_text() == "JSD 0.000"
    page.keyboard.press("ArrowRight")
    settle(page)
    assert panel.inner_text() != "JSD 0.000"


def test_the_detail_shows_every_method_and_the_predictions_over_time(two, runs, open_page):
    page = open_page(two)
    show_images(page)
    image = shown_images(page)[1]
    page.locator(f".cards .panel[data-image='{image}']").first.click()
    dialog = page.locator("dialog[open]")
    assert dialog.locator(".matrix").first.locator(".panel").count() == 4  # two methods of two runs
    bars = dialog.locator(".outcomes").first.locator(".outcome")
    said = [bars.nth(i).get_attribute("aria-label") for i in range(bars.count())]
    predicted = [int(r.predictions[image]) for r in runs[0].records]
    assert [int(re.match(r"epoch \d+: (\d)", text)[1]) for text in said] == predicted
    bars.nth(1).click()
    assert "epoch 1" in dialog.locator(".where").inner_text()
    assert place(page) == "epoch 1 of 5"
    page.keyboard.press("Escape")
    assert page.locator("dialog[open]").count() == 0


def test_the_tooltip_gives_the_value_of_the_cell(two, runs, open_page):
    page = open_page(two)
    show_images(page)
    image = shown_images(page)[1]
    canvas = page.locator(f".cards .panel[data-run='0'][data-image='{image}'] canvas")
    box = canvas.bounding_box()
    page.mouse.move(box["x"] + box["width"] * 4.5 / 12, box["y"] + box["height"] * 7.5 / 12)
    cells = runs[0].records[-1].maps["gradcam", "features"][image]
    found = re.fullmatch(r"cell 8, 5 of 12×12: value ([\d.e+-]+), .*", page.locator(".tip").inner_text())
    assert float(found[1]) == pytest.approx(cells[7, 4], abs=float(np.ptp(cells)) / 255 / 2 + 6e-4)


def test_the_view_is_kept_in_the_address(two, open_page):
    page = open_page(two)
    choose(page, "Method", "eigencam")
    choose(page, "Colours", "jet")
    page.locator("h1").click()
    page.keyboard.press("ArrowLeft")
    page.wait_for_timeout(400)  # it is written when the user pauses
    hash_ = page.evaluate("location.hash")
    assert page.evaluate("history.length") <= 2
    again = open_page(two, hash=hash_)
    assert again.get_by_label("Method", exact=True).input_value() == "eigencam"
    assert again.get_by_label("Colours", exact=True).input_value() == "jet"
    assert place(again) == "epoch 4 of 5"


def test_a_damaged_address_shows_the_page_all_the_same(two, open_page):
    page = open_page(
        two,
        hash="#place=99&method=none&layer=x&probe=7&colormap=constructor&detail=4000&show=run:77&__proto__=1&beside=q&sort=zz&filter=zz",
    )
    assert place(page) == "epoch 5 of 5"
    assert len(shown_images(page)) == 21


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
    assert page.locator(".bar").bounding_box()["height"] < 160


def test_dark_mode(two, open_page):
    page = open_page(two, dark=True)
    red, green, blue = map(
        int, re.findall(r"\d+", page.evaluate("getComputedStyle(document.body).backgroundColor"))[:3]
    )
    assert max(red, green, blue) < 60
    ink = re.findall(r"\d+", page.evaluate("getComputedStyle(document.body).color"))[:3]
    assert min(map(int, ink)) > 190


def test_everything_is_reached_by_keyboard_and_has_a_name(two, open_page):
    page = open_page(two, width=650)
    nameless = page.evaluate(
        """() => [...document.querySelectorAll("button, input, select, [role=img], canvas, figure")].filter(it =>
            it.tagName !== "CANVAS" ? !(it.getAttribute("aria-label") || it.textContent.trim() || it.labels?.length)
                                    : !it.closest("[aria-label]")).map(it => it.outerHTML.slice(0, 200))"""
    )
    assert nameless == []
    show_images(page)
    panel = page.locator(".cards .panel").nth(2)
    assert re.search(r"most focus at row \d+, column \d+ of 12 by 12.* Predicted", panel.get_attribute("aria-label"))
    panel.focus()
    page.keyboard.press("Enter")
    assert page.locator("dialog[open]").count() == 1


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
    assert page.locator("img, b:has-text('bold') b").count() == 0
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


def test_alerts_are_marked_in_summary_and_curves(runs, tmp_path, open_page):
    data = page_data(runs)
    data["runs"][1]["alerts"] = [{"name": "off target", "text": "enrichment 0.4 <b>below</b> 1", "places": [2, 3, 4]}]
    path = tmp_path / "page.html"
    path.write_text(render_page(data), encoding="utf-8")
    page = open_page(path)
    assert "off target" in page.locator(".alerts").inner_text()
    mark = page.locator(".plot[data-metric='on_target_enrichment'] .alert")
    over = page.locator(".plot[data-metric='on_target_enrichment'] .u-over").bounding_box()
    box = mark.bounding_box()
    assert box["x"] + box["width"] / 2 == pytest.approx(over["x"] + over["width"] * 2 / 5, abs=3)
    assert "<b>below</b>" in mark.get_attribute("title")


def test_a_thousand_looks_of_256_images(runs, tmp_path, open_page):
    run = runs[0]
    rows = np.resize(np.arange(len(run.probe["labels"])), 256)
    probe = {name: array[rows] for name, array in run.probe.items()}
    known = run.manifest["probe"] | {"ids": [f"image {i}" for i in range(256)], "n": 256, "groups": None}

    def longer(i):
        r = run.records[i % EPOCHS]
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


def test_data_from_a_server_are_asked_for_again(folders, tmp_path, chromium):
    """As TensorBoard's tab does: a training goes on, and the page follows, with all that has been chosen."""
    runs = [load_run(folder) for folder in folders]
    answers = {"looks": 4}

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            if self.path == "/":
                body, kind = render_page(None, data_src="data.json", refresh=0.3, title="CAM").encode(), "text/html"
            else:
                some = [replace(run, records=run.records[: answers["looks"]]) for run in runs]
                body, kind = json.dumps(page_data(some), allow_nan=False).encode(), "application/json"
            self.send_response(200)
            self.send_header("Content-Type", kind)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    page = chromium.new_page()
    errors = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on(
        "console", lambda m: errors.append(m.text) if m.type == "error" and "favicon" not in m.location["url"] else None
    )
    try:
        page.goto(f"http://127.0.0.1:{server.server_port}/")
        page.wait_for_selector(".cards .panel")
        assert place(page) == "epoch 3 of 3"
        choose(page, "Method", "eigencam")
        answers["looks"] = 6
        page.wait_for_function("() => document.querySelector('.where').textContent === 'epoch 5 of 5'")
        assert page.get_by_label("Method", exact=True).input_value() == "eigencam"
        page.locator("h1").click()
        page.keyboard.press("ArrowLeft")
        answers["looks"] = 5
        page.wait_for_function("() => document.querySelector('.where').textContent === 'epoch 4 of 4'")
    finally:
        page.close()
        server.shutdown()
        server.server_close()
    assert errors == []


def test_the_max_t_map_outlines_what_moved(runs, tmp_path, open_page):
    page = open_page(write_page(runs, tmp_path / "page.html"), hash="#detail=-1")
    dialog = page.locator("dialog[open]")
    shift = dialog.locator(".panel[role=img]")
    assert shift.count() == 4
    key = "gradcam/features"
    for index, run in enumerate(runs):
        record = run.records[-1]
        critical = record.reference[key]["t_critical"]
        moved = int((np.abs(record.t_maps["gradcam", "features"]) >= critical).sum())
        assert f"{moved} of 144 cells" in shift.nth(2 + index).inner_text()


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
