"""Names under which numbers are logged and filed: spelled here, and never taken apart.

:class:`Key` says what a number is of. Whoever reads records gets keys from :func:`keys_of`, and holds them from then on.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

ALERT = "alert/"  # before the name of a rule, in the key that says whether it is raised
_NOT_IN_KEYS = re.compile(r"[^A-Za-z0-9_./-]")  # in MLflow's; a layer may be called fpn[0]
_NAME = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_.-]{0,98}[A-Za-z0-9_])?")


@dataclass(frozen=True)
class Key:
    """What a number is of; ``method`` and ``layer`` are "" for one of the whole look, such as ``seconds``."""

    metric: str
    method: str = ""
    layer: str = ""

    def __str__(self) -> str:
        return "/".join(filter(None, (self.metric, self.method, self.layer)))

    def filed(self, layers: Sequence[str]) -> str:
        """As a record's ``per_image`` and ``aggregates`` have it: ``entropy/gradcam``, ``entropy/gradcam/<layer>``."""
        return per_image_key(self.metric, self.method, self.layer, layers) if self.method else self.metric

    def logged(self, layers: Sequence[str], name: str | None = None) -> str:
        """As a record's ``metrics`` and the loggers have it: ``cam/entropy/gradcam``, ``cam/<name>/entropy/gradcam``."""
        return plain_key(self.filed(layers), name)

    @property
    def rule(self) -> str | None:
        """The name of the rule, if this says whether an alert is raised."""
        return self.metric.removeprefix(ALERT) if self.metric.startswith(ALERT) else None

    def spellings(self) -> set[str]:
        """All that a person may write for it: with or without the layer, with ``gradcam++`` or ``gradcampp``."""
        if not self.method:
            return {self.metric}
        methods, layers = {self.method, metric_name(self.method)}, {self.layer, _layer_name(self.layer)}
        return {"/".join((self.metric, m, *layer)) for m in methods for layer in ((), *((one,) for one in layers))}


def keys_of(logged: Iterable[str], methods: Sequence[str], layers: Sequence[str], name: str | None) -> dict[Key, str]:
    """What the numbers of a run are of, and under which text each was logged.

    Every method and layer is spelled as it was when the number was logged, and looked up. Alerts are of the whole look.

    Args:
        logged: Keys of a record's ``metrics``; those of another callback are left out.
        methods, layers, name: Of the run's manifest.
    """
    series = {series_name(method, layer, layers): (method, layer) for method in methods for layer in layers}
    prefix = plain_key("", name)
    keys: dict[Key, str] = {}
    for text in logged:
        if text.startswith(prefix):
            filed = text.removeprefix(prefix)
            metric, _, tail = filed.partition("/")  # a metric's name has no slash
            of_map = tail in series and not filed.startswith(ALERT)
            keys[Key(metric, *series[tail]) if of_map else Key(filed)] = text
    return keys


def check_name(name: str | None) -> str | None:
    """A name that can stand in metric keys of every logger and in folder names, or None.

    Raises:
        ValueError: It cannot.
    """
    if name is not None and (not _NAME.fullmatch(name) or ".." in name):
        raise ValueError(
            f"name={name!r} becomes part of metric keys and folders; use at most 100 letters (a-z), digits, '_', '-' and '.', "
            "with a letter, digit or '_' at both ends."
        )
    return name


def metric_name(method: str) -> str:
    """A method's name as it stands in metric keys, which every logger has to take: ``gradcam++`` → ``gradcampp``."""
    return _NOT_IN_KEYS.sub("_", method.replace("+", "p").replace("/", "_"))


def series_name(method: str, layer: str, layers: Sequence[str]) -> str:
    """``gradcam``, with ``/<layer>`` appended only when several layers are tracked."""
    series = metric_name(method)
    return f"{series}/{_layer_name(layer)}" if len(layers) > 1 else series


def per_image_key(metric: str, method: str, layer: str, layers: Sequence[str]) -> str:
    """``entropy/gradcam``, or ``entropy/gradcam/<layer>``."""
    return f"{metric}/{series_name(method, layer, layers)}"


def metric_key(metric: str, method: str, layer: str, layers: Sequence[str], name: str | None) -> str:
    """``cam/entropy/gradcam``, or ``cam/<name>/entropy/gradcam`` for a callback with a name."""
    return plain_key(per_image_key(metric, method, layer, layers), name)


def plain_key(metric: str, name: str | None) -> str:
    """``cam/seconds``, or ``cam/<name>/seconds``."""
    return f"cam/{name}/{metric}" if name else f"cam/{metric}"


def is_ours(text: str) -> bool:
    """Was a number of this name logged by one of our callbacks, and not by the trainer itself?"""
    return text.startswith(plain_key("", None))


def fired(values: Mapping[str, float], name: str | None, before: set[str]) -> dict[str, float]:
    """Those numbers that loggers show: an alert's only once it has fired, so that a page of them is not flat.

    Args:
        values: By their keys.
        name: Of the callback.
        before: Keys of alerts that have fired; those that do now are added.
    """
    alerts = plain_key(ALERT, name)
    before.update(key for key, value in values.items() if key.startswith(alerts) and value)
    return {key: value for key, value in values.items() if not key.startswith(alerts) or key in before}


def group_keys(groups: Sequence[str]) -> dict[str, str]:
    """Each group's tag as a part of a metric's name, ``on_target_enrichment.<tag>``: letters, digits, ``_`` and ``-``.

    Tags that would look alike get a number.
    """
    keys: dict[str, str] = {}
    for tag in dict.fromkeys(groups):
        plain = re.sub(r"[^A-Za-z0-9_-]", "_", tag)[:60] or "_"
        same = sum(key == plain or key.startswith(f"{plain}_n") for key in keys.values())
        keys[tag] = f"{plain}_n{same + 1}" if same else plain
    return keys


def _layer_name(layer: str) -> str:
    return _NOT_IN_KEYS.sub("_", layer)
