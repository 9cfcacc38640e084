"""The site: what is made at build time says all there is, and its links lead somewhere. `make docs` builds it."""

import importlib
import inspect
import re
import sys
from pathlib import Path

import pytest
import yaml

from cam_callbacks.cli import parser
from cam_engine.metrics import descriptions

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def site():
    sys.path.insert(0, str(ROOT / "scripts"))
    try:
        return importlib.import_module("site_pages")
    finally:
        sys.path.remove(str(ROOT / "scripts"))


def navigation():
    class Loader(yaml.SafeLoader):
        """Knows nothing of Python objects."""

    Loader.add_multi_constructor("tag:yaml.org,2002:python/", lambda loader, suffix, node: suffix)
    nav = yaml.load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"), Loader)["nav"]

    def pages(part):
        if isinstance(part, str):
            yield part
        else:
            for one in part.values() if isinstance(part, dict) else part:
                yield from pages(one)

    return list(pages(nav))


def test_the_navigation_has_every_page_once(site):
    written = {path.relative_to(ROOT / "docs").as_posix() for path in (ROOT / "docs").rglob("*.md")}
    made = {page for page in site.FROM_ROOT.values() if page != "index.md"} | {f"api/{p}.md" for p in site.PACKAGES}
    made |= {"reference/command_line.md", "reference/metric_keys.md", "reference/house.md"}
    assert sorted(navigation()) == sorted(written | made)


def test_every_public_name_has_a_page_and_a_docstring(site):
    for package, (_, names) in site.packages().items():
        page = site.api_page(package, "", names)
        for name in names:
            assert f"::: {package}.{name}\n" in page
            if package == "cam_callbacks.transformers":  # which is not installed here
                continue
            thing = getattr(importlib.import_module(package), name)
            assert not callable(thing) or inspect.getdoc(thing), f"{package}.{name}"


def test_the_command_line_has_every_command_and_argument(site):
    page = site.command_line_page()
    for name, command in next(a for a in parser()._actions if a.choices).choices.items():
        section = page.split(f"## cam-callbacks {name}\n")[1].split("\n## ")[0]
        for action in command._actions:
            assert action.dest == "help" or f"`{(action.option_strings or [site.spelled(action)[1:-1]])[0]}" in section
            assert action.dest == "help" or action.help, (name, action.dest)


def test_the_metric_keys_have_every_number_and_those_of_a_real_look(site):
    page = site.metric_keys_page()
    keys = set(re.findall(r"^\| `(cam/[^`]+)`", page, re.MULTILINE))
    assert {f"cam/{number.name}" for number in descriptions()} == {
        key.removesuffix("/<method>") for key in keys if not key.startswith("cam/alert/")
    }
    assert {re.sub(r"/(gradcam|eigencam)$", "/<method>", key) for key in site.logged()} <= keys


def test_a_storey_of_the_house_stands_on_those_below(site):
    found = site.house.imports()
    floors = {
        room: level for level, storey in enumerate(site.house.storeys(found)) for group in storey for room in group
    }
    assert floors.keys() == found.keys() and len(found) > 50
    together = {"cam_callbacks.delivery", "cam_callbacks.loggers"}  # which know each other
    for room, targets in found.items():
        assert all(floors[target] < floors[room] or {room, target} == together for target in targets), room
    page = site.house.page()
    assert all(f'id="{room}"' in page for room in found)


@pytest.mark.parametrize(
    ("home", "link", "leads_to"),
    [
        ("docs/start.md", "metrics.md#alerts", "metrics.md#alerts"),
        ("docs/start.md", "../CONTRIBUTING.md#tests", "contributing.md#tests"),
        ("docs/start.md", "../examples/plain_loop.py", "{}/blob/main/examples/plain_loop.py"),
        ("docs/why.md", "why/", "{}/tree/main/docs/why"),
        ("docs/tutorials/one_image.md", "../methods.md", "../methods.md"),
        ("docs/tutorials/one_image.md", "one_image.py", "one_image.py"),
        ("CONTRIBUTING.md", "docs/adding.md", "adding.md"),
        ("SECURITY.md", "https://example.org/x", "https://example.org/x"),
        ("docs/index.md", "../README.md", "index.md"),
    ],
)
def test_links_lead_into_the_site_or_to_the_repository(site, home, link, leads_to):
    assert site.with_links(f"[x]({link}) `[y](z.md)`", home).startswith(f"[x]({leads_to.format(site.REPOSITORY)})")
    assert site.with_links(f"```\n[x]({link})\n```", home) == f"```\n[x]({link})\n```"
