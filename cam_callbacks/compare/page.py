"""The comparison as one HTML file that fetches nothing."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cam_callbacks.compare.agree import Agreement, Part, agreement, short
from cam_callbacks.compare.curves import HEIGHT, LEFT, RIGHT, WIDTH, Chart, charts, svg, swatch, user_charts
from cam_callbacks.compare.load import Run, with_unique_names
from cam_callbacks.compare.markup import asset, content_hash, data_uri, escape, fill, json_block, name_of
from cam_callbacks.compare.numbers import Number, shown
from cam_callbacks.compare.strips import Strip, strips
from cam_callbacks.compare.table import Cell, Group, axis, table
from cam_callbacks.records import write_atomically

_MOST_USER_CHARTS = 24


def page(runs: Sequence[Run]) -> str:
    """One self-contained HTML page about one run or several: summary, curves, film strips.

    Everything is inline and its content security policy forbids the rest, so that it works from a disk, as an
    MLflow artifact and in a frame. Every text that comes from a run is escaped.

    Raises:
        ValueError: No runs.
    """
    if not runs:
        raise ValueError("a page needs at least one run, got none.")
    runs = with_unique_names(runs)
    agreed = agreement(runs)
    drawn: list[Chart] = []
    trainers = user_charts(runs)[:_MOST_USER_CHARTS]
    sections = [_section(runs, part, drawn) for part in agreed.parts]
    if trainers:
        sections.append(
            f"<section><h2>Logged by the trainer</h2>{_charts(runs, trainers, drawn, 'the trainer')}</section>"
        )
    style, script = asset("page.css"), asset("page.js")
    names = " · ".join(run.name for run in runs)
    return fill(
        asset("page.html"),
        {
            "policy": f"default-src 'none'; img-src data:; style-src {content_hash(style)}; "
            f"script-src {content_hash(script)}",
            "title": escape(f"{names[:120]} – where they look" if len(runs) > 1 else f"{names[:120]} – where it looks"),
            "heading": _heading(runs),
            "facts": _facts(runs),
            "check": _check(runs, agreed),
            "legend": _legend(runs),
            "unit": axis(runs),
            "runs": _run_table(runs),
            "summary": _summary(runs, agreed),
            "sections": "\n".join(sections),
            "footer": _footer(runs),
            "style": style,
            "script": script,
            "data": json_block(_data(runs, drawn)),
        },
    )


def write_page(runs: Sequence[Run], path: str | os.PathLike[str]) -> Path:
    """Write :func:`page` to a file, whole or not at all; missing folders are made."""
    return write_atomically(Path(path), page(runs).encode())


def _heading(runs: Sequence[Run]) -> str:
    return name_of(runs[0].name, 120) if len(runs) == 1 else f"Where {len(runs)} runs look"


def _facts(runs: Sequence[Run]) -> str:
    first = runs[0].manifest
    probe = first.get("probe") or {}
    size = "×".join(map(str, probe.get("image_size") or ()))
    facts = [f"{probe['n']} probe images" + (f" of {size}" if size else "")] if probe.get("n") else []
    facts += [f"explains the {first['target']}"] if first.get("target") else []
    looks = max(len(run.records) for run in runs)
    facts.append("1 look" if looks == 1 else f"{looks} looks" if len(runs) == 1 else f"up to {looks} looks each")
    return " · ".join(map(escape, facts))


def _check(runs: Sequence[Run], agreed: Agreement) -> str:
    """The fingerprint check and everything else that differs."""
    fingerprint = escape(short((runs[0].manifest.get("probe") or {}).get("fingerprint")))
    if len(runs) == 1:
        badge = f'<p class="badge">Probe <code>{fingerprint}</code></p>'
    elif agreed.same_probe:
        badge = f'<p class="badge good"><b>✓ Same probe</b> in all runs <code>{fingerprint}</code></p>'
    else:
        badge = '<p class="badge bad"><b>✗ Different probes</b></p>'
    notes = "".join(f"<li>{escape(note)}</li>" for note in agreed.notes)
    return badge + (f'<ul class="notes" aria-label="What differs">{notes}</ul>' if notes else "")


def _legend(runs: Sequence[Run]) -> str:
    if len(runs) == 1:
        return ""
    chips = "".join(
        f'<button type="button" class="chip" data-run="{index}" aria-pressed="true">'
        f"{swatch(index)}{name_of(run.name, 40)}</button>"
        for index, run in enumerate(runs)
    )
    return f'<nav class="legend" aria-label="Runs: show or hide">{chips}</nav>'


def _run_table(runs: Sequence[Run]) -> str:
    """What each run is: model, methods, how far it went, parameters that differ."""
    rows: list[tuple[str, list[str]]] = [
        ("model", [str(run.manifest.get("model") or "–") for run in runs]),
        ("methods", [", ".join(run.methods) or "–" for run in runs]),
        ("layers", [", ".join(run.layers) or "–" for run in runs]),
        ("looks", [f"{len(run.records)}, to epoch {run.records[-1].epoch}" for run in runs]),
        ("reference", [_reference(run) for run in runs]),
        ("written", [_written(run) for run in runs]),
    ]
    names = dict.fromkeys(name for run in runs for name in run.params)
    for name in names:
        values = [run.params.get(name, "–") for run in runs]
        if len(set(values)) > 1:
            rows.append((f"parameter {name}", values))
    body = "".join(
        f'<tr><th scope="row">{name_of(title, 60)}</th>'
        + "".join(f"<td>{name_of(v, 100)}</td>" for v in values)
        + "</tr>"
        for title, values in rows
    )
    head = "<td></td>" + "".join(f'<th scope="col">{swatch(i)}{name_of(run.name)}</th>' for i, run in enumerate(runs))
    return _scroll(
        f'<table class="runs"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>', "What the runs are"
    )


def _reference(run: Run) -> str:
    """Where each method's drift is measured from."""
    said = []
    epochs = {record.look: record.epoch for record in run.records}
    for key, reference in run.records[-1].reference.items():
        method = key.partition("/")[0] if len(run.layers) <= 1 else key
        settled = (
            "epoch {}".format(epochs.get(reference.get("look", -1), "?"))
            if reference.get("settled")
            else "not settled yet"
        )
        said.append(f"{method}: {settled}")
    return ", ".join(said) or str(run.manifest.get("reference") or "–")


def _written(run: Run) -> str:
    version = run.manifest.get("version")
    moment = run.records[-1].time or run.manifest.get("created")
    date = (
        time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(moment))
        if isinstance(moment, (int, float)) and moment > 0
        else ""
    )
    return ", ".join(filter(None, (date, f"cam-callbacks {version}" if version else ""))) or "–"


def _summary(runs: Sequence[Run], agreed: Agreement) -> str:
    """A small table for each group; side by side where few runs leave room for it."""
    unit = axis(runs)
    tables = "".join(_group(group, runs, unit) for group in table(runs, agreed))
    return f'<div class="tables{" wide" if len(runs) > 3 else ""}">{tables}</div>'


def _group(group: Group, runs: Sequence[Run], unit: str) -> str:
    names = "".join(f'<th scope="col">{swatch(i)}{name_of(run.name, 60)}</th>' for i, run in enumerate(runs))
    lines = "".join(
        f'<tr><th scope="row" title="{escape(row.number.meaning)}">{name_of(row.number.title, 60)}{_arrow(row.number)}'
        f"</th>{''.join(_cell(cell, unit) for cell in row.cells)}</tr>"
        for row in group.rows
    )
    head = f'<thead><tr><th scope="col" class="corner">{name_of(group.title, 120)}</th>{names}</tr></thead>'
    return _scroll(f'<table class="summary">{head}<tbody>{lines}</tbody></table>', f"Final values: {group.title}")


def _arrow(known: Number) -> str:
    if known.better is None:
        return ""
    sign, words = ("↑", "more is better") if known.better == "higher" else ("↓", "less is better")
    return f' <span class="arrow" role="img" aria-label="{words}" title="{words}">{sign}</span>'


def _cell(cell: Cell | None, unit: str) -> str:
    if cell is None:
        return '<td class="none">–</td>'
    if cell.best is None:
        return f"<td>{shown(cell.final)}</td>"
    where = f"best value, at {unit} {cell.best_at}"
    return f'<td>{shown(cell.final)} <small title="{where}">best {shown(cell.best)} @ {cell.best_at}</small></td>'


def _section(runs: Sequence[Run], part: Part, drawn: list[Chart]) -> str:
    """One method on one layer: film strips, then its curves."""
    figures = "".join(_figure(runs, strip, part) for strip in strips(runs, part))
    size = f" <small>{part.grid[0]}×{part.grid[1]} cells</small>" if part.grid else ""
    pictures = (
        f'<div class="strips">{figures}</div>'
        if figures
        else '<p class="muted">The pictures of the probe are missing.</p>'
    )
    curves = charts(runs, part)
    first = [chart for chart in curves if chart.number.headline]
    rest = [chart for chart in curves if not chart.number.headline]
    where = f"{part.method} on {part.layer}"
    more = f"<details><summary>More curves</summary>{_charts(runs, rest, drawn, where)}</details>" if rest else ""
    title = f"<h2>{escape(part.method)} <small>on</small> {name_of(part.layer)}{size}</h2>"
    return f"<section>{title}{_charts(runs, first, drawn, where)}{more}<h3>Film strips</h3>{pictures}</section>"


def _figure(runs: Sequence[Run], strip: Strip, part: Part) -> str:
    name = runs[strip.run].name
    button = escape(f"Enlarge the film strip of {name}, {part.method} on {part.layer}")
    source = data_uri(strip.picture, strip.kind)
    return (
        f'<figure class="strip" data-run="{strip.run}">'
        f"<figcaption>{swatch(strip.run)}{name_of(name)}</figcaption>"
        f'<button type="button" class="enlarge" aria-label="{button}">'
        f'<img src="{source}" width="{strip.width}" height="{strip.height}" alt="{escape(strip.alt)}">'
        "</button></figure>"
    )


def _charts(runs: Sequence[Run], chosen: Sequence[Chart], drawn: list[Chart], where: str) -> str:
    """The charts as figures; each is appended to ``drawn``, and its place there is its number on the page."""
    names = [run.name for run in runs]
    figures = []
    for chart in chosen:
        label = f"{chart.number.title}, {where}. {_said(chart, names)}"
        figures.append(
            f'<figure class="plot" tabindex="0" data-chart="{len(drawn)}">'
            f"<figcaption><b>{name_of(chart.number.title, 60)}</b>"
            f"{escape(chart.number.meaning)}{_bands(chart)}</figcaption>"
            f'{svg(chart, names, label)}<output aria-live="polite"></output></figure>'
        )
        drawn.append(chart)
    return f'<div class="plots">{"".join(figures)}</div>'


def _said(chart: Chart, names: Sequence[str]) -> str:
    ends = [
        f"{names[curve.run]}: from {shown(curve.points[0].value)} to {shown(curve.points[-1].value)}"
        for curve in chart.curves
        if curve.points
    ]
    return f"By {chart.unit}: {'; '.join(ends)}." if ends else "No value."


def _bands(chart: Chart) -> str:
    """Floors and ceilings in words; the ceiling usually lies far above the chart."""
    bands = []
    for curve in chart.curves:
        known = [
            (word, value) for word, value in (("floor", curve.floor), ("ceiling", curve.ceiling)) if value is not None
        ]
        if known:
            bands.append(
                f"<span>{swatch(curve.run)}{', '.join(f'{word} {shown(value)}' for word, value in known)}</span>"
            )
    return f'<span class="bands">{"".join(bands)}</span>' if bands else ""


def _scroll(inner: str, label: str) -> str:
    return f'<div class="scroll" tabindex="0" role="region" aria-label="{escape(label)}">{inner}</div>'


def _footer(runs: Sequence[Run]) -> str:
    versions = sorted({str(run.manifest.get("version")) for run in runs if run.manifest.get("version")})
    return escape(
        f"Made by cam-callbacks from the records of {'this run' if len(runs) == 1 else 'these runs'}"
        + (f" (written by {', '.join(versions)})." if versions else ".")
    )


def _data(runs: Sequence[Run], drawn: Sequence[Chart]) -> dict[str, Any]:
    """What the script needs: names, and each chart's points."""
    return {
        "runs": [run.name for run in runs],
        "box": {"width": WIDTH, "height": HEIGHT, "left": LEFT, "right": RIGHT},
        "charts": [
            {
                "unit": chart.unit,
                "domain": chart.domain,
                "curves": [{"run": c.run, "points": [[p.at, shown(p.value)] for p in c.points]} for c in chart.curves],
            }
            for chart in drawn
        ],
    }
