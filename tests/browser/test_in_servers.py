"""The page where people see it: in TensorBoard's tab, and in MLflow's artifact pane, which is a sandboxed frame."""

import json
import shutil
import time
from types import SimpleNamespace
from urllib.parse import quote

import pytest
from mlflow import MlflowClient
from script_coverage import counted
from torch.utils.tensorboard import SummaryWriter

from cam_callbacks.compare import compare_runs
from cam_callbacks.drawing import Drawing
from cam_callbacks.loggers import MLflowSink, TensorBoardSink
from cam_callbacks.records import RecordStore


@pytest.fixture
def window(chromium):
    """``window(address, dark=False)``: a page of 1500 px; ``.trouble`` collects errors of the console that name our page."""
    contexts, counts = [], []

    def open_it(address, dark=False):
        context = chromium.new_context(
            viewport={"width": 1500, "height": 1000}, color_scheme="dark" if dark else "light"
        )
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(60_000)
        trouble = []
        page.on("console", lambda m: trouble.append(m.text) if m.type == "error" else None)
        page.on("pageerror", lambda error: trouble.append(str(error)))
        counts.append(counted(page))
        page.goto(address)
        return SimpleNamespace(page=page, trouble=trouble)

    yield open_it
    for write in counts:
        write()
    for context in contexts:
        context.close()


def test_the_tab_in_tensorboard_shows_the_runs_and_follows_them(start_tensorboard, folders, window, tmp_path):
    clean, shortcut = (RecordStore(folder) for folder in folders)
    logdir = tmp_path / "logs"
    shutil.copytree(clean.folder, logdir / "clean" / "cam")
    live = RecordStore(logdir / "shortcut" / "cam")
    shutil.copytree(shortcut.folder, live.folder)
    for look in shortcut.looks[3:]:
        live.path(look).unlink()
    address, _ = start_tensorboard(logdir)
    opened = window(f"{address}/#cam")
    tab = opened.page.frame_locator("iframe[src*='plugin_entry']")
    viewer = tab.frame_locator("iframe")
    viewer.locator(".cards .panel").first.wait_for()

    assert tab.locator(".bar label").all_inner_texts() == ["clean\n6 looks", "shortcut\n3 looks"]
    assert viewer.locator("h1").inner_text() == "Where 2 runs look"
    viewer.locator("main").screenshot(path=tmp_path / "tab.png")
    opened.page.screenshot(path=tmp_path / "tensorboard.png")

    for look in shortcut.looks[3:]:
        live.write(shortcut.read(look))
    tab.locator(".bar label", has_text="6 looks").nth(1).wait_for()
    deadline = time.monotonic() + 60
    while viewer.locator("section.summary").text_content().count("6, to epoch 5") < 2:
        assert time.monotonic() < deadline
        time.sleep(0.5)

    tab.locator(".bar input").first.uncheck()
    viewer.locator("h1", has_text="shortcut").wait_for()
    tab.locator(".bar input").nth(1).uncheck()
    tab.locator(".note", has_text="Choose a run above").wait_for()
    assert [line for line in opened.trouble if "plugin/cam" in line or "Content Security" in line] == []


def test_the_images_tab_of_tensorboard_shows_every_panel(start_tensorboard, folders, window, tmp_path):
    """WebP pictures, which TensorBoard serves as bytes of no known type."""
    store = RecordStore(folders[0])
    sink = TensorBoardSink(SummaryWriter(str(tmp_path / "logs" / "clean")))
    sink.deliver(store[-1], Drawing(store, 3))
    address, _ = start_tensorboard(tmp_path / "logs")
    opened = window(f"{address}/#images")
    images = opened.page.locator("img[src*='individualImage']")
    images.nth(len(store.manifest["methods"]) * (3 + 2) - 1).wait_for()  # and the sheet, and the crops under the focus
    deadline = time.monotonic() + 60
    while not images.evaluate_all("images => images.every(image => image.naturalWidth > 100)"):
        assert time.monotonic() < deadline
        time.sleep(0.5)
    opened.page.screenshot(path=tmp_path / "images.png")
    sources = images.evaluate_all("images => images.map(image => image.src)")  # a page of twelve
    assert b"WEBP" in {opened.page.request.get(source).body()[8:12] for source in sources}


def test_the_report_in_mlflows_artifact_pane(mlflow_server, folders, window, tmp_path):
    client = MlflowClient(tracking_uri=mlflow_server)
    experiment = client.create_experiment("digits")
    runs = []
    for folder in folders:
        store = RecordStore(folder)
        run = client.create_run(experiment, run_name=store.manifest["run"])
        runs.append(run.info.run_id)
        sink, drawing = MLflowSink(client, run.info.run_id), Drawing(store, 4)
        for look in store.looks[-2:]:
            sink.deliver(store.read(look), drawing)
        sink.finish(store, drawing)
    opened = window(f"{mlflow_server}/#/experiments/{experiment}/runs/{runs[0]}/artifacts/cam_report.html")
    frame = opened.page.frame_locator("iframe")
    frame.locator(".cards .panel").first.wait_for()
    assert frame.locator("h1").inner_text() == "clean"
    width = frame.locator("html").evaluate("root => [root.clientWidth, root.scrollWidth]")
    assert width[1] <= width[0] + 1, f"the page is {width[1]} px wide in a pane of {width[0]}"
    slider = frame.locator("input[type=range]").first
    slider.focus()
    slider.press("Home")
    opened.page.screenshot(path=tmp_path / "mlflow.png")
    assert [line for line in opened.trouble if "blob:" in line or "sandbox" in line] == []

    names = quote(json.dumps(runs)), quote(json.dumps([experiment]))
    opened = window(f"{mlflow_server}/#/compare-runs?runs={names[0]}&experiments={names[1]}")
    file = opened.page.get_by_text("cam_report.html").first
    file.wait_for(state="attached")
    file.evaluate("file => file.click()")  # MLflow's panes move and cover it
    for place, name in enumerate(("clean", "shortcut")):
        side = opened.page.frame_locator("iframe").nth(place)
        side.locator("h1", has_text=name).wait_for()
        side.get_by_role("button", name="epoch before").evaluate("button => button.click()")
        assert side.locator(".bar .where").inner_text() == "epoch 4 of 5"
        assert side.locator("html").evaluate("root => root.scrollWidth <= root.clientWidth")
    assert [line for line in opened.trouble if "blob:" in line or "sandbox" in line] == []
    file = opened.page.get_by_text("cam_latest.png").first
    file.evaluate("file => file.click()")
    pictures = opened.page.locator("img[src^='blob:']:visible")
    pictures.nth(1).wait_for()
    pictures.nth(1).evaluate("picture => picture.decode().then(() => picture.scrollIntoView())")
    opened.page.screenshot(path=tmp_path / "side_by_side.png")

    comparison = compare_runs(*runs, tracking_uri=mlflow_server).log(mlflow_server, "digits")
    opened = window(f"{mlflow_server}/#/experiments/{experiment}/runs/{comparison}/artifacts/cam_compare.html")
    frame = opened.page.frame_locator("iframe")
    frame.locator("h1", has_text="Where 2 runs look").wait_for()
    opened.page.screenshot(path=tmp_path / "mlflow_compare.png")
