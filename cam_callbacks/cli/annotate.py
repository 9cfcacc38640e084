"""``cam-callbacks annotate``: a page on which a person draws boxes on the probe images."""

from __future__ import annotations

import argparse
import webbrowser
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cam_callbacks.cli.arguments import CommandError, at_least_one

if TYPE_CHECKING:
    from cam_callbacks.compare import Run


def add_annotate(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """The command and its arguments."""
    annotate = commands.add_parser(
        "annotate",
        help="draw boxes on the probe images: where a model should look",
        description="Open a page on which you mark the object, and a region that you suspect, on each probe image. It saves a "
        "boxes.json.",
        epilog="then:\n"
        '  ProbeSet(images, labels, boxes="boxes.json")    the images that were marked\n'
        '  CAMCallback(boxes="boxes.json")                 the same probe as in the run before, with boxes',
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    annotate.add_argument(
        "source", metavar="PROBE_OR_RECORDS", help="a folder of records, a folder above one, or a folder of pictures"
    )
    annotate.add_argument(
        "--size", type=at_least_one, metavar="N", help="of pictures: side of the model's input, as for the probe"
    )
    annotate.add_argument(
        "-o", "--output", type=Path, default=Path("annotate.html"), metavar="PAGE", help="(default: %(default)s)"
    )
    annotate.add_argument("--no-open", action="store_true", help="write the page and open no browser")
    annotate.set_defaults(command=run_annotate)


def run_annotate(args: argparse.Namespace) -> int:
    """``cam-callbacks annotate``."""
    from cam_callbacks.compare import annotation_data, render_page
    from cam_callbacks.records.files import write_atomically

    data = annotation_data(**_probe(args.source, args.size))
    page = write_atomically(args.output, render_page(data).encode()).resolve()
    print(
        f'page: {page}\nIt saves boxes.json, for ProbeSet(..., boxes="boxes.json") and CAMCallback(boxes="boxes.json").'
    )
    if not args.no_open:
        webbrowser.open(page.as_uri())
    return 0


def _probe(source: str, size: int | None) -> dict[str, Any]:
    """Pictures, ids, labels and class names of a run's probe, or of a folder of pictures."""
    from cam_callbacks.compare import LoadError, load_run
    from cam_callbacks.compare.select import folders_below

    if next(folders_below(Path(source)), None) is None:
        return _of_pictures(source, size)
    try:
        return _of_run(load_run(source), source)
    except LoadError as error:
        raise CommandError(str(error)) from error


def _of_run(run: Run, source: str) -> dict[str, Any]:
    known = run.manifest.get("probe") or {}
    if "pictures" not in run.probe or run.manifest.get("store_images") is False:
        raise CommandError(f"the records in {source!r} hold no pictures (store_images=False) to draw on.")
    return {
        "pixels": run.probe["pictures"],
        "ids": known.get("ids"),
        "labels": run.probe.get("labels"),
        "class_names": known.get("class_names"),
    }


def _of_pictures(source: str, size: int | None) -> dict[str, Any]:
    from cam_callbacks.probe import ProbeSet

    try:
        probe = ProbeSet.from_folder(source, size=size)
    except (FileNotFoundError, ValueError) as error:
        raise CommandError(f"{source!r} holds neither records nor pictures to draw on: {error}") from error
    labels = None if probe.labels is None else probe.labels.numpy()
    return {"pixels": probe.pictures(), "ids": probe.ids, "labels": labels, "class_names": probe.class_names}
