import io
import json
import re
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from cam_callbacks.compare import compare_runs, load_run, write_page
from cam_callbacks.compare.agree import Part, agreement
from cam_callbacks.compare.curves import _ticks, charts
from cam_callbacks.compare.markup import fill, json_block
from cam_callbacks.compare.page import page
from cam_callbacks.compare.strips import image_order, strips

HOSTILE = [
    '"><script>alert(1)</script>',
    "</script><img src=x onerror=alert(1)>",
    'it\'s "quoted" & <b>bold</b>',
    "🦊 {{data}} {{script}}",
    "n\x00ul \ud800 \x1b[31m",
    "y" * 500,
]


class Reader(HTMLParser):
    """Collects elements, their attributes and the text of scripts; fails where an end does not fit."""

    VOID = frozenset({"meta", "img", "br", "link", "input"})

    def __init__(self, text):
        super().__init__()
        self.elements, self.scripts, self.open, self.text = [], [], [], []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)
        if tag == "script":
            self.scripts.append("")

    def handle_startendtag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open, f"</{tag}> without a start"
        assert self.open[-1] == tag
        self.open.pop()

    def handle_data(self, data):
        if self.open and self.open[-1] == "script":
            self.scripts[-1] += data
        elif self.open and self.open[-1] != "style":
            self.text.append(data)

    def all(self, tag, **having):
        wanted = {key.rstrip("_"): value for key, value in having.items()}
        return [attrs for name, attrs in self.elements if name == tag and wanted.items() <= attrs.items()]


@pytest.fixture
def two(write_run):
    return [
        load_run(write_run("clean", methods=["eigencam", "gradcam"])),
        load_run(write_run("shortcut", "nuisance", methods=["eigencam", "gradcam"], skip=(4,), nan=(6,))),
    ]


def test_the_page_holds_all_its_parts(two):
    read = Reader(page(two))

    assert read.open == []
    assert len(read.all("figure", class_="strip")) == 4
    assert len(read.all("svg", class_="chart")) == len(read.all("figure", class_="plot")) == 2 * 7 + 2
    assert len(read.all("button", class_="chip")) == 2
    text = " ".join(read.text)
    assert "Same probe" in text
    assert "on-target enrichment" in text
    assert all(image["alt"].startswith("Film strip of") for image in read.all("img"))
    assert all(svg["aria-label"] for svg in read.all("svg", class_="chart"))


def test_nothing_is_fetched(two):
    text = page(two)
    read = Reader(text)

    for _, attrs in read.elements:
        for name in ("src", "href", "action", "data", "srcset"):
            assert not (attrs.get(name) or "").startswith(("http", "//")), attrs
        assert "style" not in attrs  # the policy forbids it
        assert not [name for name in attrs if name.startswith("on")]
    assert all(image["src"].startswith("data:image/") for image in read.all("img"))
    assert not re.search(r"https?://|@import|url\(", text)
    policy = read.all("meta", **{"http-equiv": "Content-Security-Policy"})[0]["content"]
    assert policy.startswith("default-src 'none'")


def test_hostile_names_are_text(write_run):
    probe = {"fingerprint": "5f", "n": 6, "image_size": [48, 48], "ids": HOSTILE, "class_names": HOSTILE[:3]}
    runs = [load_run(write_run(name, epochs=2, model=name, layers=["a<b>'\""], probe=probe)) for name in HOSTILE]

    read = Reader(page(runs))

    assert read.open == []
    assert len(read.scripts) == 2
    assert len(read.all("img")) == len(runs)
    data = json.loads(read.scripts[0])
    assert data["runs"][0] == HOSTILE[0]
    assert HOSTILE[0] in "".join(read.text)
    assert "\x00" not in "".join(read.text)
    assert {attrs["title"] for attrs in read.all("bdi") if "title" in attrs} == {HOSTILE[-1]}


def test_a_page_of_hostile_names_can_be_written(write_run, tmp_path):
    path = write_page([load_run(write_run(HOSTILE[4], epochs=2))], tmp_path / "new" / "page.html")
    assert "n�ul" in path.read_text(encoding="utf-8")


def test_one_run_makes_a_page(two):
    read = Reader(page(two[:1]))
    assert len(read.all("figure", class_="strip")) == 2
    assert read.all("button", class_="chip") == []


def test_a_page_without_pictures_or_common_maps(write_run):
    runs = [load_run(write_run("a")), load_run(write_run("b", target="predicted"))]
    read = Reader(page(runs))
    assert read.all("figure", class_="strip") == []
    assert len(read.all("svg", class_="chart")) == 2  # val_acc and val_loss
    runs[0].probe.clear()
    assert "pictures of the probe are missing" in page(runs[:1])
    with pytest.raises(ValueError, match="at least one run"):
        page([])


def test_curves_break_at_a_missing_look_and_at_an_undefined_value(two):
    chart = next(c for c in charts(two, agreement(two).parts[0]) if c.number.key == "drift_ref")
    whole, broken = chart.curves

    assert [point.at for point in broken.points] == [0, 1, 2, 3, 5, 7]
    assert [point.joined for point in broken.points] == [False, True, True, True, False, False]
    assert [point.joined for point in whole.points] == [False] + [True] * 7
    assert (whole.floor, whole.ceiling) == (0.02, 0.4)


def test_a_missing_look_is_a_gap_in_the_film_strip(two):
    part = agreement(two).parts[0]
    complete, gapped = strips(two, part)
    assert "No look at 4." in gapped.alt
    assert "No look" not in complete.alt
    assert (complete.width, complete.height) == (gapped.width, gapped.height)
    pixels = [np.asarray(Image.open(io.BytesIO(strip.picture)).convert("RGB"), float) for strip in (complete, gapped)]
    empty = [int((np.abs(picture[100] - (243, 245, 247)).max(axis=1) < 4).sum()) for picture in pixels]
    assert empty[1] - empty[0] > 60  # of 80 pixels of an empty cell


def test_rows_are_in_the_same_order_worst_drift_first(two):
    part = Part("gradcam", "layer4", (12, 12), (0, 1))
    drift = np.fmax(*[run.per_image("drift_ref", "gradcam", "layer4") for run in two])
    assert image_order(two, part) == list(np.argsort(-drift, kind="stable"))


def test_several_looks_in_an_epoch_are_set_over_looks(write_run):
    folder = write_run("half")
    run = load_run(folder)
    for record in run.records:
        object.__setattr__(record, "epoch", record.look // 2)
    (chart, *_) = charts([run], agreement([run]).parts[0])
    assert chart.unit == "look"
    assert [point.at for point in chart.curves[0].points] == list(range(8))


def test_parameters_that_differ_are_shown(two):
    runs = [replace(run, params={"lr": lr, "epochs": "8"}) for run, lr in zip(two, ("0.1", "0.01"), strict=True)]
    text = "".join(Reader(page(runs)).text)
    assert "parameter lr" in text
    assert "parameter epochs" not in text


def test_a_comparison_writes_its_page(two, tmp_path):
    comparison = compare_runs(*two)
    assert comparison.write(tmp_path / "page.html").read_text(encoding="utf-8") == comparison.page()


def test_json_cannot_leave_its_element():
    text = json_block({"name": "</script><!--<script>&\u2028"})
    assert not set("<>&\u2028") & set(text)
    assert json.loads(text) == {"name": "</script><!--<script>&\u2028"}


def test_values_are_no_templates():
    assert fill("{{a}} {{b}}", {"a": "{{b}}", "b": "{{a}}"}) == "{{b}} {{a}}"


@pytest.mark.parametrize(("low", "high"), [(0, 1), (0, 0.05), (-0.2, 0.6), (0, 37.9), (1e6, 3e6), (0.9990, 0.9995)])
def test_ticks_are_few_and_reach_around_the_values(low, high):
    ticks = _ticks(low, high, 4)
    assert 3 <= len(ticks) <= 7
    assert ticks[0] <= low + 1e-9
    assert ticks[-1] >= high - 1e-9
