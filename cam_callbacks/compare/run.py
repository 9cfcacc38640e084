"""The records of one run, read from their folder."""

from __future__ import annotations

import math
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cam_callbacks.keys import Key, is_ours, keys_of
from cam_callbacks.records import Record, RecordError, RecordStore
from cam_callbacks.records.files import LARGEST, read_file
from cam_callbacks.text_table import printable

_MOST_PARAMS = 1000
_MOST_YAML = 2**20  # bytes
_PACKED = 100  # times that what a run unpacks to may be larger than its files
CAM = "cam"  # the folder that a callback makes in its log folder


class LoadError(ValueError):
    """A run that cannot be read: no such folder or MLflow run, or no look in it yet.

    >>> from cam_callbacks.compare import LoadError, load_run
    >>> try:
    ...     load_run("runs/none")
    ... except LoadError as error:
    ...     print(error)
    no folder 'runs/none' (and an MLflow run id has 32 hexadecimal digits).
    """


class UnreadableRun(LoadError):
    """A run that is there and has nothing to read: no look yet, or all of them damaged."""


@dataclass(frozen=True, eq=False)
class Run:
    """The records of one run, in memory.

    ``source``: what the user named. ``records``: in order of looks; a look that could not be read is left out and
    said in ``warnings``. ``probe``: arrays of :attr:`RecordStore.probe`. ``params``: of the MLflow run.

    >>> from cam_callbacks.compare import load_run
    >>> run = load_run("runs/one")
    >>> run.name, [record.look for record in run.records], run.probe["labels"]
    ('one', [0, 1], array([0, 1, 2, 0, 1, 2]))
    """

    name: str
    source: str
    manifest: dict[str, Any]
    records: list[Record]
    probe: dict[str, NDArray[Any]] = field(default_factory=dict)
    params: dict[str, str] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    folder: Path | None = None  # of its records, where they lie on a disk that stays

    @property
    def methods(self) -> list[str]:
        return [str(method) for method in self.manifest.get("methods") or ()]

    @property
    def layers(self) -> list[str]:
        return [str(layer) for layer in self.manifest.get("layers") or ()]

    @cached_property
    def keys(self) -> dict[Key, str]:
        """What each number is of → the text it was logged under."""
        logged = dict.fromkeys(text for record in self.records for text in record.metrics)
        return keys_of(logged, self.methods, self.layers, self.manifest.get("name"))

    @cached_property
    def user_names(self) -> list[str]:
        """Names of the numbers that the trainer logged itself."""
        names = {name for record in self.records for name in record.user_metrics}
        return sorted(name for name in names if not is_ours(name))

    def user_curve(self, name: str) -> list[float]:
        """A number of the trainer's own at every look; NaN where it was not logged."""
        return [record.user_metrics.get(name, math.nan) for record in self.records]

    def curve(self, key: Key) -> list[float]:
        """A number at every look; NaN where it is undefined, or was not measured."""
        logged = self.keys.get(key, "")
        return [record.metrics.get(logged, math.nan) for record in self.records]

    def reference(self, method: str, layer: str) -> dict[str, Any]:
        """What drift was measured against at the last look: look, settled, floor, ceiling; {} if unknown."""
        return self.records[-1].reference.get(f"{method}/{layer}", {})

    def per_image(self, metric: str, method: str, layer: str) -> NDArray[np.float64] | None:
        """Each probe image's value at the last look, (N,); None where it was not kept."""
        return self.records[-1].per_image.get(Key(metric, method, layer).filed(self.layers))


def name_below(folder: Path, root: Path) -> str:
    """A run's name as TensorBoard has it: where its folder lies below a log folder, without the ``cam`` that a callback makes."""
    parts = folder.relative_to(root).parts
    return "/".join(parts[:-1] if parts and parts[-1] == CAM else parts)


def with_unique_names(runs: Sequence[Run]) -> list[Run]:
    """The same runs; one that is called by its folder's name alone gets that of the folders above, where the name is "cam" or
    occurs twice, and any other name that occurred before a number behind it."""
    taken: set[str] = set()
    named = []
    counts = Counter(run.name for run in runs)
    alike = [run for run in runs if _is_nameless(run) and (counts[run.name] > 1 or run.name == CAM)]
    places = dict(zip(map(id, alike), _places([run.folder for run in alike if run.folder is not None]), strict=True))
    for run in (replace(run, name=printable(places.get(id(run), "")) or run.name) for run in runs):
        name, count = run.name, 1
        while name in taken:
            count += 1
            name = f"{run.name} ({count})"
        taken.add(name)
        named.append(run if name == run.name else replace(run, name=name))
    return named


def _is_nameless(run: Run) -> bool:
    return run.folder is not None and run.name == run.folder.resolve().name


def _places(folders: Sequence[Path]) -> list[str]:
    """Each folder's name below the deepest one that holds all of them; of a single one its own."""
    if not folders:
        return []
    own = [folder.resolve() for folder in folders]
    own = [folder.parent if folder.name == CAM else folder for folder in own]
    root = Path(os.path.commonpath([folder.parent for folder in own]))
    return [name_below(folder, root) for folder in own]


def read_folder(folder: Path, source: str, name: str | None = None, params: dict[str, str] | None = None) -> Run:
    """Read the records in ``folder`` itself; ``name`` replaces the one in its manifest."""
    return read_store(RecordStore(folder), source, name, params)


def read_store(store: RecordStore, source: str, name: str | None = None, params: dict[str, str] | None = None) -> Run:
    """Read all records of a store; what cannot be read is left out and said."""
    folder = store.folder
    manifest = store.manifest
    looks = store.looks
    if not looks:
        raise UnreadableRun(f"{source!r} has no look yet: the first is written at the end of the first validation.")
    records, warnings = [], []
    left = max(LARGEST, _PACKED * store.size)  # zip can keep gigabytes of zeros in a few kilobytes, look by look
    for look in looks:
        try:
            record = store.read(look)
            left -= record.nbytes
            if left < 0:
                raise RecordError(f"its looks unpack to more than {_PACKED} times what they have on disk.")
            _check_images(record, manifest)
            records.append(record)
        except (RecordError, OSError) as error:
            warnings.append(f"look {look} is left out: {_below(error, folder)}")
            if left < 0:
                break
    if gaps := sorted(set(range(looks[0], looks[-1])) - set(looks)):
        listed = ", ".join(map(str, gaps[:10])) + (", …" if len(gaps) > 10 else "")
        warnings.append(f"{len(gaps)} of its looks {'is' if len(gaps) == 1 else 'are'} missing: {listed}")
    if not records:
        raise UnreadableRun(f"none of the {len(looks)} looks in {source!r} can be read; {warnings[0]}")
    try:
        probe = store.probe
    except RecordError as error:
        probe = {}
        warnings.append(f"no pictures: {_below(error, folder)}")
    title = printable(name or str(manifest.get("run") or "")) or folder.resolve().name
    params = logged_params(store) | hyperparameters(folder) if params is None else params
    return Run(title, source, manifest, records, probe, params, tuple(warnings), None if name else folder)


def _check_images(record: Record, manifest: Mapping[str, Any]) -> None:
    """Raise RecordError where a look is of another number of images than the run."""
    n = manifest.get("probe", {}).get("n")
    if n is not None and any(len(maps) != n for maps in record.maps.values()):
        raise RecordError(f"it is of another number of images than the run's {n}.")


def hyperparameters(folder: Path, top: Path | None = None) -> dict[str, str]:
    """What Lightning's TensorBoardLogger wrote as ``hparams.yaml`` into its log folder, beside or above the records.

    Plain values and lists of them; nested ones are joined by "/". {} where there is no such file, or it holds objects, which
    are never made from a file. With ``top`` nothing outside that folder is read, and no link followed.
    """
    import yaml  # type: ignore[import-untyped]

    for parent in (folder, *folder.parents[:2]):
        file = parent / "hparams.yaml"
        if top is not None and (not parent.is_relative_to(top) or file.is_symlink()):
            continue
        try:
            text = read_file(file, _MOST_YAML).decode()
            # An anchor that names itself ten times over, ten levels deep, is a text of gigabytes.
            if any(isinstance(event, yaml.AliasEvent) for event in yaml.parse(text, yaml.SafeLoader)):
                continue
            parameters = yaml.safe_load(text)
        except (OSError, ValueError, RecursionError, yaml.YAMLError):
            continue
        return {printable(str(name)): printable(str(value)) for name, value in islice(_flat(parameters), _MOST_PARAMS)}
    return {}


def logged_params(store: RecordStore) -> dict[str, str]:
    """What the run had logged to MLflow by the end of the training, as :meth:`RecordStore.write_params` kept it."""
    return {printable(name): printable(value) for name, value in islice(store.params.items(), _MOST_PARAMS)}


def _flat(values: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in values.items() if isinstance(values, dict) else ():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{name}/")
        elif not isinstance(value, list) or not any(isinstance(item, (dict, list)) for item in value):
            yield f"{prefix}{name}", value


def _below(error: Exception, folder: Path) -> str:
    """The error's words with paths relative to the folder, which may be a temporary one."""
    return printable(str(error).replace(f"{folder}{os.sep}", ""))
