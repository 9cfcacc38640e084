"""Which rules judge a look, when one is raised, and when it is taken back.

A rule (:mod:`cam_callbacks.look.rules`) holds at a look, does not, or leaves things as they are: between its two thresholds, or
where it cannot judge. An alert is raised when a rule has held at ``looks`` looks running, and cleared when it does not; since
the two thresholds differ, an alert does not flicker. A calibration sets one threshold for each series in their place. Nothing is
judged on drift against the previous look: it goes to zero in a healthy training and in one that has learned a shortcut.

A rule of one's own is any object with the attributes of :class:`cam_callbacks.look.judgement.Rule`.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

from cam_callbacks.calibration import Calibration
from cam_callbacks.keys import check_name, plain_key
from cam_callbacks.look.evidence import LookEvidence, Measurement
from cam_callbacks.look.exchange_rules import untrusted
from cam_callbacks.look.judgement import Judgement, Rule
from cam_callbacks.look.rules import DEFAULT
from cam_callbacks.look.tracking import Series
from cam_callbacks.records import Alert, Judged, Record
from cam_engine.errors import nearest

log = logging.getLogger(__name__)

MAP_UNTRUSTED = "map_untrusted"  # a remark, no alert: it says what a map is worth, not what the model does


def make_rules(alerts: Sequence[str | Mapping[str, Any] | Rule] | None) -> tuple[Rule, ...]:
    """Rules from plain values: None is all of them, [] none. Each is a name, ``{"name": "focus_moved", "above": 3.0}``, or a rule.

    Raises:
        ValueError, TypeError: No such rule, no such setting, or two rules of one name.
    """
    rules = DEFAULT if alerts is None else tuple(_rule(given) for given in _listed(alerts))
    names = [rule.name for rule in rules]
    if len(set(names)) < len(names):
        raise ValueError(f"alerts= names a rule twice: {', '.join(names)}.")
    return rules


def names_of(given: bool | Sequence[str], rules: Sequence[Rule]) -> frozenset[str]:
    """The alerts that are meant: True for all, False for none, or names.

    Raises:
        ValueError: A name that none of the rules has.
    """
    known = [rule.name for rule in rules]
    if isinstance(given, bool):
        return frozenset(known) if given else frozenset()
    names = [given] if isinstance(given, str) else list(given)
    if unknown := [name for name in names if name not in known]:
        raise ValueError(f"stop_on_alert= names {', '.join(unknown)}; this callback's alerts are {', '.join(known)}.")
    return frozenset(names)


def _listed(alerts: Any) -> Sequence[Any]:
    if isinstance(alerts, (str, Mapping)) or not isinstance(alerts, Sequence):
        raise TypeError(f'alerts= takes a list such as ["off_target"], [] for none, or None for all, not {alerts!r}.')
    return alerts


_OF_A_RULE = ("name", "of", "looks", "above", "clears", "spread", "advice", "judge")


def _rule(given: str | Mapping[str, Any] | Rule) -> Rule:
    known = {rule.name: rule for rule in DEFAULT}
    if not isinstance(given, (str, Mapping)):
        if lacking := [part for part in _OF_A_RULE if not hasattr(given, part)]:
            raise TypeError(
                f"alerts= takes names, dictionaries and rules; {given!r} is none: it lacks {', '.join(lacking)}."
            )
        check_name(given.name)
        return given
    settings = {"name": given} if isinstance(given, str) else dict(given)
    name = settings.pop("name", None)
    if name not in known:
        raise ValueError(f"no alert {name!r}; nearest: {nearest(str(name), known)}. Available: {', '.join(known)}.")
    rule: Any = known[name]
    names = [field.name for field in fields(rule)]
    if unknown := [key for key in settings if key not in names]:
        raise ValueError(f"alert {name!r} has no setting {', '.join(unknown)}; it takes {', '.join(names)}.")
    changed: Rule = replace(rule, **settings)
    return changed


@dataclass(frozen=True)
class State:
    """Of one rule for one method and layer: looks at which it held ``running``, whether it is ``raised``, and since when
    it held (``look``, ``epoch``)."""

    running: int = 0
    raised: bool = False
    look: int = -1
    epoch: int = -1


States = dict[tuple[str, str, str], State]


def judge(
    rules: Sequence[Rule],
    states: States,
    measured: Mapping[Series, Measurement],
    evidence: LookEvidence,
    epoch: int,
    ids: Sequence[str],
    calibration: Calibration | None = None,
) -> tuple[States, tuple[Alert, ...], tuple[Judged, ...]]:
    """Judge a look: the states after it, the alerts that are raised at it, old and new, and what every rule found. Pure.

    Args:
        rules: Those that judge.
        states: As the look before left them.
        measured: Of every series.
        evidence: Of the look as a whole.
        epoch: Of the look.
        ids: Of the probe's images, for alerts to name.
        calibration: Sets thresholds where accepted runs have the same series.
    """
    found = {
        (rule.name, method, layer): (rule, rule.judge(of))
        for rule in rules
        for method, layer, of in _judged_by(rule, measured, evidence)
    }
    statistics = {key: judgement.statistic for key, (_, judgement) in found.items()}
    thresholds = {} if calibration is None else calibration.thresholds(statistics)
    look, after, alerts, judged = evidence.look, dict[tuple[str, str, str], State](), [], []
    for key, (rule, judgement) in found.items():
        threshold = thresholds.get(key)
        above, clears = (rule.above, rule.clears) if threshold is None else (threshold.limit, threshold.limit)
        holds = _holds(judgement, above, clears)
        before = states.get(key, State())
        state = after[key] = _next(before, holds, rule.looks, look, epoch)
        judged.append(_as_record(key, judgement, above, state.raised))
        if state.raised:
            named = tuple(ids[i] for i in judgement.images)
            alerts.append(
                Alert(
                    *key, look, epoch, state.look, state.epoch, not before.raised,
                    judgement.measured or judgement.reason or "not measured at this look", named,
                    judgement.advice or rule.advice,
                )
            )  # fmt: skip
    return after, tuple(alerts), (*judged, *_remarks(measured, evidence))


def _judged_by(
    rule: Rule, measured: Mapping[Series, Measurement], evidence: LookEvidence
) -> Iterator[tuple[str, str, Measurement | LookEvidence]]:
    """Method, layer and evidence of everything that a rule judges; both are "" for the look as a whole."""
    if rule.of == "look":
        yield "", "", evidence
    else:
        yield from ((method, layer, of) for (method, layer), of in measured.items())


def _holds(judgement: Judgement, above: float, clears: float) -> bool | None:
    if not math.isfinite(judgement.statistic):
        return None
    return True if judgement.statistic > above else False if judgement.statistic <= clears else None


def _as_record(key: tuple[str, str, str], judgement: Judgement, above: float, raised: bool) -> Judged:
    reason = judgement.reason
    if not reason and not math.isfinite(above):
        reason = "what is healthy depends on the task: needs a calibration"
    state = "raised" if raised else "cannot judge" if reason else "quiet"
    return Judged(*key, state, judgement.statistic, above, reason or judgement.measured)


def _remarks(measured: Mapping[Series, Measurement], evidence: LookEvidence) -> Iterator[Judged]:
    """What the maps are worth: those that show no more than a random place are named."""
    if evidence.exchanged is None or evidence.at_chance:
        return
    for series in measured:
        counted = (evidence.exchanged.of_maps.get((part, series)) for part in ("focus", "random"))
        if remark := untrusted(*counted):
            yield Judged(MAP_UNTRUSTED, *series, "remark", math.nan, math.nan, remark)


def flags(rules: Sequence[Rule], alerts: Sequence[Alert], name: str | None) -> dict[str, float]:
    """Under each rule's key, ``cam/alert/<name>``: is it raised, for any series?"""
    raised = {alert.name for alert in alerts}
    return {plain_key(f"alert/{rule.name}", name): float(rule.name in raised) for rule in rules}


def _next(state: State, holds: bool | None, looks: int, look: int, epoch: int) -> State:
    if holds is False:
        return State()
    if holds is None:
        return state if state.raised else State()  # "running" means without a gap
    first = state if state.running else State(look=look, epoch=epoch)
    running = first.running + 1
    return replace(first, running=running, raised=state.raised or running >= looks)


def to_plain(states: States) -> list[dict[str, Any]]:
    """States as primitives, for a checkpoint."""
    return [{"rule": r, "method": m, "layer": layer, **vars(state)} for (r, m, layer), state in states.items()]


def from_plain(plain: Sequence[Mapping[str, Any]]) -> States:
    """Undo :func:`to_plain`."""
    return {
        (s["rule"], s["method"], s["layer"]): State(s["running"], s["raised"], s["look"], s["epoch"]) for s in plain
    }


def announce(record: Record, on_alert: Callable[[Alert], object] | None) -> None:
    """Tell of the alerts that are raised at this very look."""
    for alert in record.alerts:
        if alert.new:
            log.warning("cam-callbacks: alert: %s", alert)
            if on_alert is not None:
                on_alert(alert)
