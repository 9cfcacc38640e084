"""The page used as a person uses it."""

import http.server
import json
import re
import threading
from dataclasses import replace

import numpy as np
import pytest
from driving import choose, open_display, pixels, place, settle, show_images, shown_images

from cam_callbacks.compare import load_run, page_data, render_page, write_page
from cam_engine.metrics import jensen_shannon

pytestmark = pytest.mark.browser


def test_the_summary_is_read_without_touching_anything(two, runs, open_page):
    page = open_page(two)
    text = page.locator("section.summary .main-numbers").inner_text()
    last = runs[1].records[-1]
    assert f"{last.metrics['cam/nuisance_enrichment/gradcam']:.3f}" in text
    assert f"{last.user_metrics['val_acc']:.3f}" in text
    apart = jensen_shannon(*[run.records[-1].maps["gradcam", "features"] for run in runs])
    page.locator("section.summary").get_by_text("All numbers").click()
    assert f"{np.nanmean(apart):.3f}" in page.locator(".distances").inner_text()
    assert "Same probe" in page.locator("header.top").inner_text()


def test_parameters_that_differ_are_read_without_touching_anything(runs, tmp_path, open_page):
    named = [replace(run, params={"lr": lr, "batch": "64"}) for run, lr in zip(runs, ("0.0125", "0.0034"), strict=True)]
    page = open_page(write_page(named, tmp_path / "page.html"))
    differs = page.locator("table.differs")
    assert "0.0125" in differs.inner_text() and "0.0034" in differs.inner_text()
    assert "batch" not in page.locator("section.summary").inner_text()
    page.get_by_text("What the runs share").click()
    assert "SmallConvNet" in page.locator("section.summary").inner_text()
    for table in page.locator("table.facts").all():
        for column in (1, 2):
            head, cell = (table.locator(part).nth(column).bounding_box() for part in ("thead tr > *", "tbody tr > *"))
            assert head["x"] == pytest.approx(cell["x"], abs=1)


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
    readout = page.locator(".plot[data-metric='consensus'] .readout")
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


def test_curves_of_the_worst_images_and_a_metric_beside(two, runs, open_page):
    page = open_page(two)
    plot = page.locator(".plot[data-metric='on_target_enrichment']")
    choose(page, "Lines", "all")
    worst = [run.records[-1].aggregates["on_target_enrichment/gradcam"] for run in runs]
    read = plot.locator(".readout").inner_text()
    for of_run in worst:
        for aggregate in ("worst_tenth", "worst_class"):
            assert f"{of_run[aggregate]:.3f}" in read
    axes = plot.locator(".u-axis").count()
    choose(page, "Beside", "val_acc")
    assert plot.locator(".u-axis").count() == axes + 1


def test_a_drift_stands_between_its_floor_and_its_ceiling(two, runs, open_page):
    page = open_page(two)
    page.locator("section.curves > details > summary").click()
    readout = page.locator(".plot[data-metric='drift_ref'] .readout")
    readout.scroll_into_view_if_needed()
    (layer,) = runs[0].manifest["layers"]
    references = [run.records[-1].reference[f"gradcam/{layer}"] for run in runs]
    for end in ("floor", "ceiling"):
        assert f"{end} {', '.join(f'{reference[end]:.3f}' for reference in references)}" in readout.inner_text()


def test_a_fixed_scale_is_the_same_at_every_epoch(runs, tmp_path, open_page):
    """Of each map: the brightest cell is at the scale's end at every look. Fixed: colours follow the share of the focus."""
    bare = [replace(run, probe={k: v for k, v in run.probe.items() if k != "pictures"}) for run in runs]
    page = open_page(
        write_page(bare, tmp_path / "page.html"), hash="#outlines=0&opacity=1&cells=1&sort=probe&colormap=viridis"
    )
    show_images(page)
    shares = [run.records[-1].maps["gradcam", "features"] for run in runs]
    shares = [maps / maps.sum((1, 2), keepdims=True) for maps in shares]
    peaks = np.array([[maps[image].max() for image in range(4)] for maps in shares])

    def brightest():
        return np.array([[pixels(page, run, image)[..., 1].max() for image in range(4)] for run in (0, 1)], int)

    assert np.ptp(brightest()) <= 2
    choose(page, "Scale", "fixed")
    settle(page)
    assert "chance" in page.locator(".legend").inner_text()
    green = brightest()  # rises along viridis
    order = np.argsort(peaks, axis=None)
    assert (np.diff(green.ravel()[order]) >= -2).all() and np.ptp(green) > 5


def test_images_are_sorted_and_filtered(two, runs, open_page):
    page = open_page(two)
    last = [run.records[-1] for run in runs]
    choose(page, "Sort", "drift")
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

    choose(page, "Class", "")
    choose(page, "Group", "left")
    groups = np.array(runs[0].manifest["probe"]["groups"])
    assert set(shown_images(page)[1:]) == set(np.flatnonzero(groups == "left"))


def test_predictions_that_flipped_since_the_reference(two, runs, open_page):
    page = open_page(two, hash="#filter=flipped")
    flipped = set()
    for run in runs:
        reference = run.records[run.reference("gradcam", "features")["look"]]
        flipped |= set(np.flatnonzero(reference.predictions != run.records[-1].predictions))
    assert set(shown_images(page)[1:]) == flipped


def test_images_keep_their_places_while_the_slider_moves(two, runs, open_page):
    page = open_page(two, hash="#sort=drift")
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
    open_display(page)
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
    # The page holds each map in 255 steps of its largest value.
    maps = [run.records[-1].maps["gradcam", "features"] for run in runs]
    jsd = jensen_shannon(*[np.round(255 * m / m.max((1, 2), keepdims=True)) for m in maps])[image]
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


def test_dark_mode(two, open_page):
    page = open_page(two, dark=True)
    red, green, blue = map(
        int, re.findall(r"\d+", page.evaluate("getComputedStyle(document.body).backgroundColor"))[:3]
    )
    assert max(red, green, blue) < 60
    ink = re.findall(r"\d+", page.evaluate("getComputedStyle(document.body).color"))[:3]
    assert min(map(int, ink)) > 190


def test_a_choice_keeps_the_keyboards_focus(two, open_page):
    page = open_page(two)
    open_display(page)
    for label in ("Method", "Scale", "Sort", "Lines"):
        box = page.get_by_label(label, exact=True)
        if label == "Scale":
            open_display(page)
        box.focus()
        before = box.input_value()
        page.keyboard.press("ArrowUp" if label == "Method" else "ArrowDown")
        assert box.input_value() != before
        assert page.evaluate("document.activeElement.ariaLabel") == label
        assert place(page) == "epoch 5 of 5"


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


def test_alerts_are_marked_in_summary_and_curves(runs, tmp_path, open_page):
    data = page_data(runs)
    alert = {
        "rule": "off_target",
        "name": "off target",
        "method": "",
        "layer": "",
        "places": [2, 3, 4],
        "advice": "Look.",
    }
    alert |= {"raised": "enrichment 0.4 <b>below</b> 1", "now": "enrichment 0.6", "cleared": None}
    data["runs"][1]["alerts"] = [alert]
    path = tmp_path / "page.html"
    path.write_text(render_page(data), encoding="utf-8")
    page = open_page(path)
    page.locator(".more > summary").click()
    said = page.locator(".alerts").inner_text()
    assert (
        "off target" in said and "when raised: enrichment 0.4 <b>below</b> 1" in said and "now: enrichment 0.6" in said
    )
    mark = page.locator(".plot[data-metric='on_target_enrichment'] .alert")
    over = page.locator(".plot[data-metric='on_target_enrichment'] .u-over").bounding_box()
    box = mark.bounding_box()
    assert box["x"] + box["width"] / 2 == pytest.approx(over["x"] + over["width"] * 2 / 5, abs=3)
    assert "<b>below</b>" in mark.get_attribute("title")


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


def test_it_works_in_a_sandboxed_frame(two, chromium):
    """MLflow's artifact pane: a frame of a blob, with scripts and without an origin, where storage and addresses throw."""
    page = chromium.new_page(viewport={"width": 700, "height": 900})
    errors = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("console", lambda m: errors.append(m.text) if m.type == "error" else None)
    page.evaluate(
        """html => {
            const frame = document.createElement("iframe");
            frame.sandbox = "allow-scripts";
            frame.width = 660;
            frame.height = 800;
            frame.src = URL.createObjectURL(new Blob([html], { type: "text/html" }));
            document.body.append(frame);
        }""",
        two.read_text(encoding="utf-8"),
    )
    frame = page.frame_locator("iframe")
    frame.locator(".cards .panel").first.wait_for(state="attached")
    frame.get_by_role("button", name="epoch before").click()
    frame.get_by_role("button", name="epoch before").click()
    assert frame.locator(".bar .where").inner_text() == "epoch 3 of 5"
    page.wait_for_timeout(400)  # until the address would be written
    frame.locator(".cards .panel").nth(2).click()
    assert frame.locator("dialog[open] .matrix .panel").count() > 0
    page.close()
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
