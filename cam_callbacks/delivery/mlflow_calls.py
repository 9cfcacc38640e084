"""One call to an MLflow run, as it lies in a queue: plain values, how it is sent, and what a server's refusal of it means."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

Call = Mapping[str, Any]
"""``call``: a method of MLflow's client. ``arguments``: of it, without the run. ``file``: name of the file or folder it sends."""

SENDS_FILES = ("log_artifact", "log_artifacts")
_BATCH = ("metrics", "params", "tags")
_OTHERS = ("set_terminated", "delete_tag", "update_run")
_REFUSALS = ("INVALID_PARAMETER_VALUE", "BAD_REQUEST", "RESOURCE_ALREADY_EXISTS")
_LASTING = (400, 411, 413, 414, 415, 422, 431)  # HTTP: malformed, too large, too long, of a kind that is not taken
_STATUS = re.compile(r"failed with error code (\d{3})|too many (\d{3}) error responses")


def check_call(call: Call, file: Path | None) -> None:
    """Raise ValueError, KeyError or TypeError where this can never be sent; ``file`` is what it sends."""
    from mlflow.entities import Metric

    for metric in dict(call["arguments"]).get("metrics", ()):
        Metric(**metric)
    if call["call"] in SENDS_FILES and (file is None or file.is_dir() != (call["call"] == "log_artifacts")):
        raise ValueError("what it sends is of another kind")
    if file is not None and not file.exists():
        raise ValueError(f"{file.name} is not there")
    if file is not None and any(each.is_symlink() for each in (file.parent, file, *file.rglob("*"))):
        raise ValueError(f"{file.name} is a link or holds one, which may lead anywhere")


def send_call(client: Any, run_id: str, call: Call, file: Path | None) -> None:
    """Make the call, for its own run where it names one. Raises what the client raises."""
    from mlflow.entities import Metric, Param, RunTag

    arguments, name = dict(call["arguments"]), call["call"]
    run_id = arguments.pop("run_id", run_id)
    if name == "log_batch":
        client.log_batch(
            run_id,
            metrics=[Metric(**m) for m in arguments.get("metrics", ())],
            params=[Param(*p) for p in arguments.get("params", ())],
            tags=[RunTag(*t) for t in arguments.get("tags", ())],
        )
    elif name in SENDS_FILES:
        getattr(client, name)(run_id, str(file), **arguments)
    elif name in _OTHERS:
        getattr(client, name)(run_id, **arguments)


def halves(call: Call) -> list[dict[str, Any]]:
    """A batch as two; nothing where it is a single entry, or no batch."""
    if call["call"] != "log_batch":
        return []
    rest = {key: value for key, value in call["arguments"].items() if key not in _BATCH}
    entries = [(kind, entry) for kind in _BATCH for entry in call["arguments"].get(kind, ())]
    if len(entries) < 2:
        return []
    middle = len(entries) // 2
    return [
        {"call": "log_batch", "arguments": {k: [e for kind, e in part if kind == k] for k in dict(part)} | rest}
        for part in (entries[:middle], entries[middle:])
    ]


def is_refusal(error: Exception) -> bool:
    """Will the same call be refused again?"""
    return getattr(error, "error_code", None) in _REFUSALS


def is_lasting(error: Exception) -> bool:
    """Does the server, or a proxy before it, say that the call itself is at fault, such as too large?"""
    return _status(error) in _LASTING


def described(call: Call) -> str:
    """A call for people: ``metric acc(%)``, ``log_artifact best.ckpt``."""
    arguments: Mapping[str, Any] = call["arguments"]
    names = (
        [m["key"] for m in arguments.get("metrics", ())],
        *([entry[0] for entry in arguments.get(kind, ())] for kind in ("params", "tags")),
    )
    listed = [f"{kind.removesuffix('s')} {name}" for kind, of in zip(_BATCH, names, strict=True) for name in of]
    return ", ".join(listed) or " ".join(filter(None, (call["call"], call.get("file"))))


def _status(error: BaseException | None) -> int | None:
    """The HTTP status of the answer that this error, or what it came from, tells of."""
    seen: Sequence[BaseException] = ()
    while error is not None and error not in seen:
        response = getattr(error, "response", None)
        if response is not None:
            return int(response.status_code)
        if found := _STATUS.search(str(error)):
            return int(found[1] or found[2])
        seen, error = (*seen, error), error.__cause__ or error.__context__
    return None
