"""What a run's records say of it, in one sentence: what was measured, and no more."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from typing import Literal

from cam_callbacks.compare.numbers import user_number
from cam_callbacks.compare.run import Run
from cam_callbacks.keys import Key
from cam_callbacks.records import Alert, Record, RecordStore
from cam_callbacks.text_table import printable

State = Literal["alarm", "clear", "open"]

_ACCURACY = re.compile(r"(^|[_/\-. ])(acc|accuracy)\d*($|[_/\-. @])")
_VALIDATION = re.compile(r"(^|[_/\-. ])(val|valid|validation|eval)($|[_/\-. ])")
_PARTS = {
    "background": "the background",
    "nuisance": "the suspected region",
    "frame": "the outermost pixels",
    "detail": "fine detail",
}
_REGIONS = (("on_target_enrichment", "on the object"), ("nuisance_enrichment", "on the suspected region"))
_OTHER_ALERTS = {
    "off_target": "the focus is off the object",
    "counterfactual_gap": "accuracy falls without the cue",
    "follows_changed": "what the prediction follows has changed since the reference",
    "focus_moved": "the focus has moved since the reference",
    "collapsed": "most images have no map",
}  # fmt: skip


def verdict(run: Run, among: Sequence[Run] = ()) -> str:
    """One sentence on a run, without its name: what its prediction follows, where it looks, and since when that is wrong.

    It goes by the alerts at the last look and claims less where less was measured: without masks or boxes nothing on the object,
    and where no rule could judge it says why.

    Args:
        run: Of at least one record; only the last ones are read.
        among: The runs that it is compared with; the highest accuracy of all is called so.

    >>> print(verdict(run))                                                # doctest: +SKIP
    validation accuracy 1.000, but the prediction follows the background in 96 % of exchanges; 0.6× on the object, since epoch 4.
    """
    accuracy, raised = _accuracy(run, among), run.records[-1].alerts
    state = standing(run)
    if state == "alarm":
        clauses = [_cause(run, raised), _focus(run)]
        since = f"since epoch {min(alert.since_epoch for alert in raised)}"
        return f"{_joined(accuracy, 'but', '; '.join(filter(None, clauses)))}, {since}."
    if reason := _unjudged(run):
        return f"cannot judge: {reason}{f'; {accuracy}' if accuracy else ''}."
    if state == "clear" or _is_pending(run):
        asked = "an alert takes another look like this one" if _is_pending(run) else "no alert"
        return f"{_joined(accuracy, 'and', '; '.join(filter(None, [_object(run), _focus(run)])))}; {asked}."
    asked = "no alert" if run.records[-1].judged else "no alert rule was asked"
    seen = "; ".join(filter(None, [accuracy, _frame(run), _focus(run), asked]))
    lacking = "" if _has_regions(run) else ", but whether it looks at the object nobody knows without masks or boxes"
    return f"{seen}{lacking}."


def standing(run: Run) -> State:
    """``"alarm"``: an alert is raised at the last look. ``"clear"``: none is, none would be by a second look like it, and a rule
    that knows the object judged. Else ``"open"``."""
    last = run.records[-1]
    if last.alerts:
        return "alarm"
    if _is_pending(run):
        return "open"
    told = {one.rule for one in last.judged if one.state == "quiet"}
    return "clear" if told & {"background_decides", "off_target"} else "open"


def said(run: Run, among: Sequence[Run] = ()) -> str:
    """The sentence behind the run's name, on one line."""
    return printable(f"{run.name}: {verdict(run, among)}")


def verdict_of(store: RecordStore) -> str:
    """:func:`said` of a run by its last look alone, so that a long one need not be read."""
    manifest = store.manifest
    return said(Run(str(manifest.get("run") or store.folder.name), str(store.folder), manifest, [store[-1]]))


def trusted_method(run: Run) -> tuple[str, str] | None:
    """The last method and layer whose maps show what decides, as far as that was tested; None where no map does."""
    remarked = {(one.method, one.layer) for one in run.records[-1].judged if one.state == "remark"}
    for method in reversed(run.methods):
        for layer in reversed(run.layers):
            if (method, layer) not in remarked:
                return method, layer
    return None


# -- clauses


def _joined(accuracy: str, word: str, clause: str) -> str:
    return f"{accuracy}, {word} {clause}" if accuracy and clause else accuracy or clause


def _accuracy(run: Run, among: Sequence[Run]) -> str:
    """``highest validation accuracy (1.000)``, or ``val_f1 0.81`` where there is no accuracy."""
    name = accuracy_name(run)
    if name is None:
        return ""
    value = run.user_curve(name)[-1]
    others = [other.user_curve(name)[-1] for other in among if other is not run and name in other.user_names]
    validated = "validation accuracy" if _VALIDATION.search(name.lower()) else "accuracy"
    title = validated if _ACCURACY.search(name.lower()) else printable(name)
    digits = f"{value:.3f}" if abs(value) < 10 else f"{value:.4g}"
    if others and all(value > other for other in others):
        return f"highest {title} ({digits})"
    return f"{title} {digits}"


def accuracy_name(run: Run) -> str | None:
    """Of the numbers that the trainer logged the one that says how good it is; of validation, and an accuracy, first."""
    last = run.records[-1].user_metrics
    known = [
        name
        for name in run.user_names
        if user_number(name).better == "higher" and math.isfinite(last.get(name, math.nan))
    ]

    def rank(name: str) -> tuple[bool, bool, str]:
        return not _ACCURACY.search(name.lower()), not _VALIDATION.search(name.lower()), name

    return min(known, key=rank, default=None)


def _cause(run: Run, raised: Sequence[Alert]) -> str:
    """What decides where it should not; else what else is raised."""
    names = [alert.name for alert in raised]
    parts = [part for part in _PARTS if f"{part}_decides" in names]
    shares = {part: share for part in parts if (share := _share(run, f"follows_{part}")) is not None}
    if shares:
        (first, share), *more = shares.items()
        also = "".join(f", {_PARTS[part]}{' alone' if part == 'nuisance' else ''} in {_percent(s)}" for part, s in more)
        return f"the prediction follows {_PARTS[first]} in {_percent(share)} of exchanges{also}"
    if "collapsed" in names and not any(value > 0 for value in _valid_fractions(run)):
        return "no image has a valid map"
    told = [text for name, text in _OTHER_ALERTS.items() if name in names]
    return " and ".join(told) or ", ".join(name.replace("_", " ") for name in dict.fromkeys(names))


def _object(run: Run) -> str:
    share = _share(run, "follows_object")
    return "" if share is None else f"the prediction follows the object in {_percent(share)} of exchanges"


def _frame(run: Run) -> str:
    share = _share(run, "follows_frame")
    return "" if share is None else f"the outermost pixels carry the class in {_percent(share)} of exchanges"


def _focus(run: Run) -> str:
    """``0.56× on the object, 6.2× on the suspected region``; that the maps show nothing, where they do not."""
    measured = [(metric, words) for metric, words in _REGIONS if any(key.metric == metric for key in run.keys)]
    if not measured:
        return ""
    of = trusted_method(run)
    if of is None:
        return "its maps do not show what decides"
    values = [(run.curve(Key(metric, *of))[-1], words) for metric, words in measured]
    return ", ".join(f"{_times(value)} {words}" for value, words in values if math.isfinite(value))


def _unjudged(run: Run) -> str:
    """Why no rule that needs no more than it has could judge; "" where one could."""
    last = run.records[-1]
    if last.maps and not any(math.isfinite(value) and value > 0 for value in _valid_fractions(run)):
        return "no image has a valid map"
    if not last.judged or any(one.state in ("quiet", "raised") and one.rule != "collapsed" for one in last.judged):
        return ""
    reasons = [one.words for one in last.judged if one.state == "cannot judge" and not one.words.startswith("needs ")]
    return max(dict.fromkeys(reasons), key=reasons.count, default="nothing that a rule needs was measured")


def _is_pending(run: Run) -> bool:
    """Is a rule beyond its threshold, though not for as many looks as it needs?"""
    return any(one.state == "quiet" and one.statistic > one.threshold for one in run.records[-1].judged)


def _valid_fractions(run: Run) -> Iterable[float]:
    fractions = [run.curve(key)[-1] for key in run.keys if key.metric == "valid_frac"]
    return fractions or [1.0]


def _has_regions(run: Run) -> bool:
    return any(key.metric == "on_target_enrichment" for key in run.keys)


def _share(run: Run, test: str) -> float | None:
    """The mean of an exchange test at the last look that made it."""
    return next((found for record in reversed(run.records) if (found := _mean(record, test)) is not None), None)


def _mean(record: Record, test: str) -> float | None:
    value = record.aggregates.get(test, {}).get("mean", math.nan)
    return value if math.isfinite(value) else None


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"


def _times(value: float) -> str:
    return f"{value:.2f}×" if value < 1 else f"{value:.1f}×"
