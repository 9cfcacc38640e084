"""What the site has beyond docs/, made when mkdocs builds it: a hook (mkdocs.yml), and no page of it is committed.

The API from each package's ``__all__``, the command line from argparse, the metric keys from their descriptions, the
house from the imports, CONTRIBUTING and its like from the root, notebooks from the tutorials, and the page of
docs/why.md from the records beside it. Links out of docs/ lead to the repository, or to the page that was made.
"""

from __future__ import annotations

import argparse
import functools
import importlib
import posixpath
import re
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "scripts")]  # mkdocs runs this file from elsewhere

import example_setup  # noqa: E402
import house  # noqa: E402

REPOSITORY = "https://github.com/cam-callbacks/cam-callbacks"

# Pages of the root, and what they are called in the site.
FROM_ROOT = {
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "SECURITY.md": "security.md",
    "CODE_OF_CONDUCT.md": "code_of_conduct.md",
    "README.md": "index.md",  # which says the same
}
LINK = re.compile(r"(\]\()([^)\s]+)(\))")
CODE = re.compile(r"(```.*?```)", re.DOTALL)


def on_files(files, config):
    """Add what is made."""
    from mkdocs.structure.files import File

    for path, content in made_pages():
        files.append(File.generated(config, path, content=content))
    return files


def on_page_markdown(markdown, page, config, files):
    """Links, as seen from docs/ or from the root, lead somewhere in the site too."""
    source = page.file.src_uri
    home = {made: name for name, made in FROM_ROOT.items() if made != "index.md"}.get(source, f"docs/{source}")
    if source == "why.md":
        page.meta["hide"] = ["navigation", "toc"]  # room for the live page
    if source.startswith("tutorials/"):
        markdown = markdown.replace(
            "; the site has it as a notebook, too.*", f", and [as a notebook]({Path(source).stem}.ipynb).*"
        )
    return with_links(markdown, home)


def on_post_page(output, page, config):
    """What the theme would fetch for the search of a site on a disk lies in the site."""
    shim = posixpath.relpath("assets/iframe-worker.js", posixpath.dirname(page.url) or ".")
    return output.replace("https://unpkg.com/iframe-worker/shim", shim)


def with_links(markdown: str, home: str) -> str:
    """The links of a page that lies at ``home`` in the repository, as the site has them; code stays as it is."""
    parts = CODE.split(markdown)
    parts[::2] = [LINK.sub(lambda found: f"{found[1]}{site_link(found[2], home)}{found[3]}", p) for p in parts[::2]]
    return "".join(parts)


def site_link(link: str, home: str) -> str:
    """Where a relative link of the repository's page ``home`` leads in the site."""
    path, hash_, anchor = link.partition("#")
    if not path or re.match(r"[a-z]+:", link):
        return link
    target = posixpath.normpath(posixpath.join(posixpath.dirname(home), path))
    page = FROM_ROOT.get(target) or (target.removeprefix("docs/") if target.startswith("docs/") else None)
    if page is None or (ROOT / target).is_dir():
        kind = "tree" if (ROOT / target).is_dir() else "blob"
        return f"{REPOSITORY}/{kind}/main/{target}{hash_}{anchor}"
    return posixpath.relpath(page, folder_of(home)) + hash_ + anchor


def folder_of(home: str) -> str:
    """The folder in the site of a page of the repository; those of the root lie in the top one."""
    return posixpath.dirname(home.removeprefix("docs/")) or "."


def made_pages() -> Iterator[tuple[str, str | bytes]]:
    """Path in the site and content of everything that is made."""
    for name, page in FROM_ROOT.items():
        if page != "index.md":
            yield page, (ROOT / name).read_text(encoding="utf-8")
    for package, (title, names) in packages().items():
        yield f"api/{package}.md", api_page(package, title, names)
    yield "reference/command_line.md", command_line_page()
    yield "reference/metric_keys.md", metric_keys_page()
    yield "reference/house.md", house.page()
    yield "why/page.html", why_page()
    for source in sorted((ROOT / "docs" / "tutorials").glob("*.py")):
        yield f"tutorials/{source.stem}.ipynb", notebook(source)


# --- the API ---

# Public packages with what they are for. Names come from `__all__`, or stand here where a module has none.
PACKAGES = {
    "cam_callbacks": "The callback, the probe and the records",
    "cam_callbacks.loop": ("A training loop of your own", ["CAMLoop"]),
    "cam_callbacks.transformers": ("transformers' Trainer", ["CAMTrainerCallback"]),
    "cam_callbacks.ultralytics": "ultralytics",
    "cam_callbacks.loggers": "Loggers, and those of your own",
    "cam_callbacks.compare": "Runs side by side",
    "cam_callbacks.records": "What looks measured, on disk",
    "cam_engine": "Maps of any PyTorch model",
    "cam_engine.detect": "Detectors",
    "cam_engine.exchange": "What the prediction follows",
    "cam_engine.layers": "Choosing layers",
    "cam_engine.loading": "Models from paths",
    "cam_engine.metrics": "Numbers about maps",
    "cam_engine.render": "Pictures",
    "cam_engine.targets": "Which score is explained",
}


def packages() -> dict[str, tuple[str, list[str]]]:
    """Each public package: its title and its public names."""
    found = {}
    for package, about in PACKAGES.items():
        title, names = about if isinstance(about, tuple) else (about, importlib.import_module(package).__all__)
        found[package] = (title, sorted(names, key=lambda name: (name.islower(), name.lower())))
    return found


def api_page(package: str, title: str, names: list[str]) -> str:
    names = [f"::: {package}.{name}\n" for name in names]
    setup = example_setup.setup(package).replace("\n", "\n    ")
    shared = f'??? example "What the examples on this page begin with"\n\n    ```python\n    {setup}\n    ```\n'
    return f"# {package}\n\n{title}.\n\n{shared}\n" + "\n".join(names)


# --- the command line ---


def command_line_page() -> str:
    """A section a command, from the parser."""
    from cam_callbacks.cli import parser

    top = parser()
    (commands,) = (action for action in top._actions if isinstance(action, argparse._SubParsersAction))
    lines = ["# Command line", "", top.description, ""]
    for name, command in commands.choices.items():
        lines += [f"## cam-callbacks {name}", "", escaped(command.description or ""), ""]
        usage = re.sub(r"\s+", " ", command.format_usage().removeprefix("usage: ")).strip()
        lines += ["```sh", usage, "```", "", "| argument | what it does |", "|---|---|"]
        for action in command._actions:
            if not isinstance(action, argparse._HelpAction):
                lines.append(f"| {spelled(action)} | {escaped(help_of(command, action))} |")
        lines.append("")
    codes = "0; 1 where a condition of `--fail-if` holds; 2 for a mistake in the use; 130 when interrupted"
    return "\n".join([*lines, "## Exit codes", "", f"{codes}."])


def spelled(action: argparse.Action) -> str:
    """An argument as one types it."""
    value = action.metavar or (action.dest.upper() if action.option_strings else action.dest)
    if not action.option_strings:
        return f"`{value}`"
    takes_none = action.nargs == 0
    return ", ".join(f"`{option}`" if takes_none else f"`{option} {value}`" for option in action.option_strings)


def help_of(command: argparse.ArgumentParser, action: argparse.Action) -> str:
    return command._get_formatter()._expand_help(action) if action.help else ""


def escaped(text: str) -> str:
    """Text of the terminal in a cell of a table."""
    return re.sub(r"\s+", " ", text).replace("|", "\\|").replace("*", "\\*").replace("<", "&lt;").strip()


# --- the metric keys ---


def metric_keys_page() -> str:
    """The keys that loggers and monitors see, from the descriptions of the numbers."""
    from cam_callbacks.look.alerts import make_rules
    from cam_engine.metrics import descriptions

    head = ["", "| key | before the first value | better | measured |", "|---|---|---|---|"]
    tables: dict[bool, list[str]] = {True: [], False: []}
    for number in descriptions():
        one = of_the_look(number)
        key = f"cam/{number.name}" if one else f"cam/{number.name}/<method>"
        better = number.better or "neither"
        tables[one].append(f"| `{key}` | {number.neutral:g} | {better} | {number.measured} |")
    alerts = [f"| `cam/alert/{rule.name}` | {rule.advice} |" for rule in make_rules(None)]
    parts = [METRIC_KEYS, "## Of each method's maps", *head, *tables[False], "", "## Of the look", *head, *tables[True]]
    parts += ["", "## Alerts", "", ALERT_KEYS, "", "| key | what to do |", "|---|---|", *alerts]
    return "\n".join(parts)


def of_the_look(number) -> bool:
    """Is the number one of the whole look, and not one of each method's maps?"""
    from cam_engine.metrics.registry import Metric

    of_maps = isinstance(number, Metric) or f"cam/{number.name}/gradcam" in logged()
    named = number.name.startswith("follows_") or number.name in ("counterfactual_gap", "failed_looks")
    return not of_maps and (named or f"cam/{number.name}" in logged())


@functools.cache
def logged() -> frozenset[str]:
    """The keys of a look that was taken: the last of docs/why."""
    from cam_callbacks import RecordStore

    return frozenset(RecordStore(ROOT / "docs" / "why" / "clean")[-1].metrics)


METRIC_KEYS = """# Metric keys

What loggers get, what `trainer.callback_metrics` holds, and what `ModelCheckpoint(monitor=…)`, `EarlyStopping` and
`compare --fail-if` ask for. `<method>` is `gradcam`, `eigencam` …, with `gradcam++` written `gradcampp`. Where
several layers are tracked, `/<layer>` follows; a callback with `name="late"` has `cam/late/…`. A monitor finds every
key before the first look, with the value of the second column. What each number means, its range and its bad end:
[metrics](../metrics.md#all-numbers). For each of the probe's groups there is also `cam/<number>.<group>/<method>`.
"""
ALERT_KEYS = """0 or 1. Monitors find them from the first look on; loggers get one once it has fired. What they measure:
[alerts](../metrics.md#alerts)."""


# --- the rest ---


def why_page() -> bytes:
    """The comparison page of the records in docs/why/, as `cam-callbacks compare` writes it."""
    from cam_callbacks.compare import compare_runs

    with tempfile.TemporaryDirectory() as folder:
        page = Path(folder) / "page.html"
        compare_runs(*(ROOT / "docs" / "why" / run for run in ("clean", "shortcut"))).write(page)
        return page.read_bytes()


def notebook(source: Path) -> str:
    """A tutorial as a notebook that has not been run."""
    import jupytext

    return jupytext.writes(jupytext.read(source), fmt="ipynb")
