"""Rules over the tracked numbers: when an alert is raised, and when it is taken back.

A rule judges one method on one layer at one look: true, false, or undecided (between its two thresholds, or not
measured), which leaves things as they are. An alert is raised when a rule has been true at ``looks`` looks running, and
cleared when it is false; since the two thresholds differ, an alert does not flicker. Nothing is judged on drift against
the previous look: it goes to zero in a healthy training and in one that has learned a shortcut.

A rule of one's own is any object with ``name``, ``looks``, ``advice`` and ``judge(measured) -> Verdict``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, ClassVar, Protocol

import numpy as np

from cam_callbacks.keys import check_name, plain_key
from cam_callbacks.look.measurement import Array, Measurement
from cam_callbacks.look.settled import CALM, CALM_FLOORS
from cam_callbacks.look.tracking import Series
from cam_callbacks.records import Alert
from cam_engine.errors import nearest
from cam_engine.metrics import mean

NAMED = 5  # images that an alert names at most


@dataclass(frozen=True, eq=False)
class Verdict:
    """``holds``: True, False (clears), or None (leaves things as they are). ``measured``: in words.
    ``images``: indices, the worst first."""

    holds: bool | None
    measured: str = ""
    images: Sequence[int] = ()


UNDECIDED = Verdict(None)


class Rule(Protocol):
    """What every rule has."""

    @property
    def name(self) -> str: ...
    @property
    def looks(self) -> int: ...
    @property
    def advice(self) -> str: ...
    def judge(self, measured: Measurement) -> Verdict: ...


@dataclass(frozen=True)
class OffTarget:
    """Mean on-target enrichment below chance after settling. Needs masks or boxes."""

    below: float = 1.0
    clears: float = 1.05
    looks: int = 2
    name: ClassVar[str] = "off_target"
    advice: ClassVar[str] = (
        "Look at the overlays of these images: what lies under the focus? ProbeSet(nuisance=...) measures a region that "
        "you suspect."
    )

    def judge(self, measured: Measurement) -> Verdict:
        values = measured.per_image.get("on_target_enrichment")
        if values is None or not measured.settled or not np.isfinite(values).any():
            return UNDECIDED
        now = mean(values)
        return Verdict(
            _between(now < self.below, now >= self.clears),
            f"on-target enrichment is {now:.2f}; chance is 1",
            _lowest(values),
        )


@dataclass(frozen=True)
class LosingFocus:
    """On-target enrichment has fallen since the reference, on the images paired. Needs masks or boxes."""

    t: float = -4.0
    fall: float = 0.05
    clears: float = 0.025
    looks: int = 2
    name: ClassVar[str] = "losing_focus"
    advice: ClassVar[str] = (
        "Compare the overlays of these images at the reference and now, and what changed in data, augmentation or "
        "learning rate."
    )

    def judge(self, measured: Measurement) -> Verdict:
        now, then = measured.per_image.get("on_target_enrichment"), measured.target_at_reference
        if now is None or then is None or not (measured.settled and measured.reference_set):
            return UNDECIDED
        change = now - then
        paired = np.isfinite(change)
        if paired.sum() < 2:
            return UNDECIDED
        before = float(then[paired].mean())
        fall = -float(change[paired].mean()) / before if before > 0 else 0.0
        deviation = float(change[paired].std(ddof=1))
        t = float(change[paired].mean()) / max(deviation, 1e-12) * float(np.sqrt(paired.sum()))
        return Verdict(
            _between(t < self.t and fall >= self.fall, fall < self.clears),
            f"on-target enrichment has fallen by {fall:.0%}, from {before:.2f} to {float(now[paired].mean()):.2f} "
            f"(paired t = {t:.1f} on {int(paired.sum())} images)",
            _lowest(change),
        )


@dataclass(frozen=True)
class FocusMoved:
    """The focus has moved in the same direction on many images, and by more than noise. Needs no masks, but images.

    ``effect``: least |t|/√n (Cohen's d) of the cell that moved most. With many images p is small for the slightest
    common move, such as a healthy training makes; its effect stayed below 0.55 where a shortcut's was above 0.8
    (docs/evidence.md).
    """

    p: float = 0.01
    effect: float = 0.65
    floors: float = CALM_FLOORS
    drift: float = CALM
    images: int = 8
    looks: int = 2
    name: ClassVar[str] = "focus_moved"
    advice: ClassVar[str] = (
        "Compare the overlays of these images at the reference and now; the record's t_maps show the cells that gained."
    )

    def judge(self, measured: Measurement) -> Verdict:
        drift, test = measured.numbers["drift_ref"], measured.moved
        if not (measured.settled and measured.reference_set) or test.n < self.images or not np.isfinite(drift):
            return UNDECIDED
        level = float(np.fmax(self.floors * measured.floor, self.drift))
        common = test.p < self.p and test.statistic >= self.effect * np.sqrt(test.n)
        return Verdict(
            _between(common and drift > level, drift <= level / 2),
            f"the focus has moved to the {place(test.t)}: drift from the reference is {drift:.3f} "
            f"(above {level:.3f}), |t| = {test.statistic:.1f} and p = {test.p:.2g} on {test.n} images",
            _lowest(-measured.per_image["drift_ref"]),
        )


@dataclass(frozen=True)
class Diffuse:
    """Mean entropy close to that of a uniform map after settling."""

    above: float = 0.95
    clears: float = 0.93
    looks: int = 2
    name: ClassVar[str] = "diffuse"
    advice: ClassVar[str] = (
        "The focus is everywhere. A cue that is spread over the whole image (a tint, blur, noise) is localised by no map: "
        "test with ProbeSet(counterfactual=...), the same images without it."
    )

    def judge(self, measured: Measurement) -> Verdict:
        now = measured.numbers["entropy"]
        if not measured.settled or not np.isfinite(now):
            return UNDECIDED
        return Verdict(
            _between(now > self.above, now <= self.clears),
            f"entropy is {now:.3f}; 1 is everywhere",
            _lowest(-measured.per_image["entropy"]),
        )


@dataclass(frozen=True)
class Collapsed:
    """Few images have a map at all. Not at the first look: an untrained network may have no gradient."""

    below: float = 0.5
    clears: float = 0.75
    looks: int = 1
    name: ClassVar[str] = "collapsed"
    advice: ClassVar[str] = (
        "Check the weights for NaN and the explained layer for dead units: the loss and the gradients of this epoch."
    )

    def judge(self, measured: Measurement) -> Verdict:
        if measured.look == 0:
            return UNDECIDED
        share = measured.numbers["valid_frac"]
        without = np.flatnonzero(~np.isfinite(measured.per_image["entropy"]))
        return Verdict(
            _between(share < self.below, share >= self.clears),
            f"{share:.0%} of the images have a valid map",
            without[:NAMED].tolist(),
        )


DEFAULT: tuple[Rule, ...] = (OffTarget(), LosingFocus(), FocusMoved(), Diffuse(), Collapsed())


def make_rules(alerts: Sequence[str | Mapping[str, Any] | Rule] | None) -> tuple[Rule, ...]:
    """Rules from plain values: None is all of them, [] none. Each is a name, ``{"name": "diffuse", "above": 0.9}``, or a rule.

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


def _rule(given: str | Mapping[str, Any] | Rule) -> Rule:
    known = {rule.name: rule for rule in DEFAULT}
    if not isinstance(given, (str, Mapping)):
        if not all(hasattr(given, part) for part in ("name", "looks", "advice", "judge")):
            raise TypeError(f"alerts= takes names, dictionaries and rules (name, looks, advice, judge), not {given!r}.")
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
    look: int,
    epoch: int,
    ids: Sequence[str],
) -> tuple[States, tuple[Alert, ...]]:
    """Judge a look: the states after it, and the alerts that are raised at it, old and new. Pure."""
    after: States = {}
    alerts = []
    for (method, layer), of_series in measured.items():
        for rule in rules:
            before = states.get((rule.name, method, layer), State())
            verdict = rule.judge(of_series)
            state = after[rule.name, method, layer] = _next(before, verdict.holds, rule.looks, look, epoch)
            if state.raised:
                named = tuple(ids[i] for i in verdict.images)
                alerts.append(
                    Alert(
                        rule.name, method, layer, look, epoch, state.look, state.epoch, not before.raised,
                        verdict.measured or "not measured at this look", named, rule.advice,
                    )
                )  # fmt: skip
    return after, tuple(alerts)


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


def place(t: Array) -> str:
    """Where a t map (h, w) gained most, in words: ``"top left"``, ``"centre"``."""
    h, w = t.shape
    row, column = divmod(int(np.argmax(t)), w)
    vertical = ("top", "", "bottom")[3 * row // h]
    horizontal = ("left", "", "right")[3 * column // w]
    return " ".join(filter(None, (vertical, horizontal))) or "centre"


def _between(raises: bool, clears: bool) -> bool | None:
    return True if raises else False if clears else None


def _lowest(values: Array) -> list[int]:
    """Indices of the lowest defined values, lowest first."""
    order = np.argsort(values, kind="stable")  # NaN last
    return [int(i) for i in order[:NAMED] if np.isfinite(values[i])]
