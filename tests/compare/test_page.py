import json
import math
import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest

from cam_callbacks.compare import compare_runs, load_run, page_data, render_page, script_hash, write_page
from cam_callbacks.compare.markup import content_hash, fill, json_block
from cam_callbacks.records import RecordStore

HOSTILE = [
    '"><script>alert(1)</script>',
    "</script><img src=x onerror=alert(1)>",
    'it\'s "quoted" & <b>bold</b>',
    "🦊 {{data}} {{script}}",
    "n\x00ul \ud800 \x1b[31m",
    "y" * 500,
]


class Reader(HTMLParser):
    """Collects elements, their attributes and the text of scripts and styles."""

    def __init__(self, text):
        super().__init__()
        self.elements, self.inside, self.last = [], {"script": [], "style": [], "title": []}, None
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        self.last = tag
        if tag in self.inside:
            self.inside[tag].append("")

    def handle_endtag(self, tag):
        self.last = None

    def handle_data(self, data):
        if self.last in self.inside:
            self.inside[self.last][-1] += data

    @property
    def tags(self):
        return [tag for tag, _ in self.elements]

    @property
    def policy(self):
        return next(attrs["content"] for tag, attrs in self.elements if attrs.get("http-equiv"))


@pytest.fixture
def two(write_run):
    return [load_run(write_run("clean")), load_run(write_run("shortcut", "nuisance", skip=(4,)))]


def test_the_page_is_the_viewer_and_its_data(two):
    read = Reader(render_page(page_data(two)))
    data, script = read.inside["script"]
    assert json.loads(data) == json.loads(json.dumps(page_data(two)))
    assert read.inside["title"] == ["clean · shortcut – where models look"]
    assert script_hash() == content_hash(script)


def test_nothing_is_fetched_and_nothing_else_may_run(two):
    text = render_page(page_data(two))
    read = Reader(text)
    _, script = read.inside["script"]
    (style,) = read.inside["style"]
    assert read.policy == (
        f"default-src 'none'; img-src data:; style-src {content_hash(style)}; script-src {content_hash(script)}; "
        "base-uri 'none'; form-action 'none'"
    )
    for _, attrs in read.elements:
        assert not {"src", "href", "action", "srcset", "style"} & set(attrs)
        assert not [name for name in attrs if name.startswith("on")]
    assert not re.search(r"@import|url\(", style)


def test_hostile_names_stay_inside_the_data(write_run):
    probe = {"fingerprint": "5f", "n": 6, "image_size": [48, 48], "ids": HOSTILE, "class_names": HOSTILE[:3]}
    runs = [load_run(write_run(name, epochs=2, model=name, layers=["a<b>'\""], probe=probe)) for name in HOSTILE]
    plain = Reader(render_page(page_data([load_run(write_run("plain", epochs=2))])))

    read = Reader(render_page(page_data(runs)))

    assert read.tags == plain.tags  # no name has become an element
    assert read.inside["script"][1] == plain.inside["script"][1]
    data = json.loads(read.inside["script"][0])
    assert data["runs"][0]["name"] == HOSTILE[0]
    assert "\x00" not in read.inside["script"][0]
    assert data["runs"][4]["name"] == "n\\x00ul \\ud800 \\x1b[31m"


def test_a_page_that_fetches_its_data_may_ask_its_own_server_alone():
    read = Reader(render_page(None, data_src='runs?a=1&b="2"', refresh=15, title="CAM"))
    (attrs,) = [attrs for _, attrs in read.elements if attrs.get("id") == "cam-data"]
    assert attrs["data-src"] == 'runs?a=1&b="2"'
    assert attrs["data-refresh"] == "15"
    assert read.policy.endswith("; connect-src 'self'")
    assert read.inside["script"][0] == ""
    assert content_hash(read.inside["script"][1]) == script_hash()
    with pytest.raises(ValueError, match="exactly one"):
        render_page(None)
    with pytest.raises(ValueError, match="exactly one"):
        render_page({}, data_src="x")


def test_a_page_is_written_whole(two, tmp_path):
    comparison = compare_runs(*two)
    path = comparison.write(tmp_path / "new" / "page.html")
    assert path.read_text(encoding="utf-8") == comparison.page()
    assert write_page([load_run(two[0].source)], path) == path


def test_what_is_undefined_is_null(write_run, tmp_path):
    """A run whose maps are all invalid has a reference without a floor; it takes no page along."""
    healthy, blank = write_run("healthy"), write_run("blank")
    store = RecordStore(blank)
    undefined = {"look": 0, "settled": False, "floor": math.nan, "ceiling": math.nan, "t_critical": math.inf}
    for record in list(store):
        reference = dict.fromkeys(record.reference or {"gradcam/layer4": {}}, undefined)
        store.write(replace(record, reference=reference, maps={k: m * 0 for k, m in record.maps.items()}))
    page = compare_runs(str(healthy), str(blank)).write(tmp_path / "page.html").read_text(encoding="utf-8")
    data = re.search(r'<script type="application/json"[^>]*>(.*?)</script>', page, re.S)[1]
    assert "NaN" not in data and "Infinity" not in data and '"floor":null' in data


def test_json_cannot_leave_its_element():
    text = json_block({"name": "</script><!--<script>&\u2028"})
    assert not set("<>&\u2028") & set(text)
    assert json.loads(text) == {"name": "</script><!--<script>&\u2028"}


def test_values_are_no_templates():
    assert fill("{{a}} {{b}}", {"a": "{{b}}", "b": "{{a}}"}) == "{{b}} {{a}}"
