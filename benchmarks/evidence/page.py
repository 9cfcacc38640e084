"""docs/evidence.md, from the figures."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from cam_callbacks.look.rules import DEFAULT
from evidence.figures import Row, bars, counted, default, delay, healthy_of, part_of, rivals, soon
from evidence.plans import JUDGED_NETWORKS, SET_CUES, SET_NETWORKS, SET_SCENES

# Trainings that had been looked at when a rule was last changed.
SEEN = frozenset(Path(__file__).with_name("seen.txt").read_text(encoding="utf-8").split())
ABOVE = {rule.name: rule.above for rule in DEFAULT}


def page(found: Mapping[str, Any]) -> str:
    """The whole page."""
    runs: Sequence[Row] = found["runs"]
    return f"""# Evidence: a matrix of trainings

Written by `make evidence`; do not edit. The figures: [evidence.json](../benchmarks/results/evidence.json).

When an alert is raised, is something wrong; and when a network has learned a cue, is one raised? Here the truth is known,
because the cue was planted, and because accuracy with the cue swapped says whether the network uses it.

**{found["looked"]} of the {found["planned"]} trainings of the plan are looked at.**{_few(found)}

## Bars

Set before anything was judged. Only the judged part counts; 95 % intervals are Wilson's.

{_bars(runs)}

## The matrix

{_matrix(runs)}

A cue counts by its *swap gap*, accuracy with cues that agree less that with cues of another class, after the last epoch: above
0.5 it **decides**, from 0.25 to 0.5 it is used **beside** the object, below it was not learned and the training is evidence of
nothing. Thresholds are to be set on one part: one family of scenes ({", ".join(SET_SCENES)}), two
networks ({", ".join(SET_NETWORKS)}), five cues ({", ".join(SET_CUES)}). What is judged has other scenes, also other networks
and cues. [What each threshold costs and catches](../benchmarks/results/evidence_thresholds.json) on the first part is kept.
`benchmarks/evidence/README.md` says how each training is made.

**Not all levels were set that way.** That of `background_decides`, an object share of 0.9, was chosen when 31 trainings of both
parts had been looked at; for it, the judged trainings among those are no independent evidence. That it counts only images which
the model gets right came when {len(SEEN)} had been looked at. It was taken for the set part (13 of its 13 onsets in place of 12,
all else alike), but proposed by false alarms of the judged part.{_since(runs)}

"Calibrated": thresholds from the other healthy trainings of the same scenes and network ({_accepted(runs)}), which differ in
schedule, augmentation and probe: more than a user's repetitions of one training would. With m of them the promised rate is
1/(m + 1), not 5 %.

![Object share of healthy trainings and of trainings with a cue, by network](evidence_share.png)

*Share of the object after the last epoch. Below ½ (dashed) the scene decides; dotted: what `background_decides` asks for.*

## Healthy trainings

{_healthy(runs)}

## Cues

Caught by default settings, with masks: runs in which the cue decides, or is used beside the object.

{_by_family(runs, "with masks")}

Without masks:

{_by_family(runs, "without masks")}

![Cues caught, by family and network](evidence_cues.png)

*The share of learned cues that default settings catch, and how many there were.*

## Onsets

The cue comes in mid-run; before, it is absent or says nothing. Counted are onsets whose cue was learned (swap gap above 0.25).

{_onsets(runs)}

![Epochs from the onset of a cue to the first alert](evidence_onsets.png)

## Beside others, in the same runs

Runs flagged, of those that could be judged:

{_rivals(runs)}

- *Alerts of version 0.1* are computed from today's maps and references.
- *Accuracy of groups*: best less worst group above 0.25 after the last epoch, for a user who has the cue's labels and every
  combination of class and cue. Without them there is no such number; with them it is nearly the truth that is judged by here.
- *Clusters of maps*: spectral clustering, class by class, on all validation images; its threshold is exceeded by at most 5 %
  of the healthy runs of the set part. It looks for a group within a class, and most of these cues are in all images.
- *Image check*: `spurious_correlations` on 500 training images, without any training, at its own threshold.

## What was missed, and false alarms

{_misses(runs)}

## What you may conclude, and what not

- The networks are small, the scenes are made, the cues are planted: levels and rates are of this matrix.
- A callback that is silent does not say that a model is right. A probe that does not hold the cue shows nothing of it.
- What settles the question is accuracy with the cue changed. The numbers tell you which cue to change.

## How it was made

```sh
make evidence                             # every training, look and figure that is not there yet; Ctrl-C and go on
make evidence EVIDENCE_ARGS="--quick"     # a tenth of it
```
"""


def _since(runs: Sequence[Row]) -> str:
    """What the present rules say of trainings that were looked at after them."""
    new = [row for row in runs if row["id"] not in SEEN]
    asked = {
        "healthy ones with any alert": counted(healthy_of(new), default("with masks")),
        "cues that decide, caught": counted(part_of(new, "decides"), default("with masks")),
        "onsets within three epochs": counted(
            part_of(new, "decides", "beside", onsets=True), soon(lambda row: row["alarms"]["with masks"])
        ),
    }
    said = "; ".join(f"{what} {_share(of)}" for what, of in asked.items() if of["n"])
    return f" Judged trainings that no rule was made by: {said}." if said else ""


def _few(found: Mapping[str, Any]) -> str:
    missing = found["planned"] - found["looked"]
    return (
        ""
        if not missing
        else f" The other {missing} are not in any figure below, so intervals are wider than they will be."
    )


def _bars(runs: Sequence[Row]) -> str:
    rows = []
    for of in bars(runs):
        bar = f"at most {-of['bar']:.0%}, upper bound 10 %" if of["bar"] < 0 else f"at least {of['bar']:.0%}"
        rows.append([of["claim"], bar, _share(of), f"**{of['verdict']}**"])
    return _table(["", "bar", "measured (95 % interval)", ""], rows)


def _matrix(runs: Sequence[Row]) -> str:
    rows = []
    for part in ("set", "judged"):
        of_part = [row for row in runs if row["part"] == part]
        count = Counter((row["role"], row["onset"] is not None) for row in of_part)
        cells = [count[role, onset] for onset in (False, True) for role in ("decides", "beside", "unlearned")]
        rows.append([part, len(of_part), count["untrained", False], count["healthy", False], *cells])
    head = ["part", "looked at", "learned nothing", "healthy", "decides", "beside", "unlearned"]
    return _table([*head, "onset: decides", "onset: beside", "onset: unlearned"], rows)


def _accepted(runs: Sequence[Row]) -> str:
    sizes = [row["accepted"] for row in runs if row["part"] == "judged" and row["accepted"]]
    return f"{min(sizes)} to {max(sizes)} of them" if sizes else "none yet has enough"


def _healthy(runs: Sequence[Row]) -> str:
    healthy, rows = healthy_of(runs), []
    for network in JUDGED_NETWORKS:
        chosen = [row for row in healthy if row["network"] == network]
        names = Counter(name for row in chosen for name in {name for _, name in row["alarms"]["with masks"]})
        rows.append([network, *_views(chosen), ", ".join(f"{name} {n}" for name, n in names.most_common()) or "none"])
    rows.append(["all judged", *_views(healthy), ""])
    rows.append(["set, apart", *_views(healthy_of(runs, "set")), ""])
    silent = [f"`{row['id']}`" for row in part_of(runs, "healthy") if not row["judged"]]
    left_out = f"Left out, because the model stayed at chance on the probe and nothing was judged: {', '.join(silent) or 'none'}."
    head = ["runs with any alert", "with masks", "without masks", "without either", "alerts"]
    return f"{_table(head, rows)}\n\n{left_out}"


def _views(rows: Sequence[Row]) -> list[str]:
    return [_share(counted(rows, default(view))) for view in ("with masks", "without masks", "without either")]


def _by_family(runs: Sequence[Row], view: str) -> str:
    learned = part_of(runs, "decides", "beside")
    rows = []
    for family in sorted({row["family"] for row in learned}):
        of_family = [row for row in learned if row["family"] == family]
        cells = [_fraction([row for row in of_family if row["network"] == n], default(view)) for n in JUDGED_NETWORKS]
        both = [_fraction([r for r in of_family if r["role"] == role], default(view)) for role in ("decides", "beside")]
        rows.append([family, *cells, *both])
    totals = [_share(counted(part_of(runs, role), default(view))) for role in ("decides", "beside")]
    all_of = [_fraction([row for row in learned if row["network"] == n], default(view)) for n in JUDGED_NETWORKS]
    return _table(["cue", *JUDGED_NETWORKS, "decides", "beside"], [*rows, ["all", *all_of, *totals]])


def _onsets(runs: Sequence[Row]) -> str:
    rows = []
    for row in part_of(runs, "decides", "beside", onsets=True):
        views = [delay(row["alarms"][view], row["onset"]) for view in ("with masks", "without masks")]
        early = sorted({name for epoch, name in row["alarms"]["with masks"] if epoch < row["onset"]})
        late = ["never" if each is None else each for each in views]
        rows.append([f"`{row['id']}`", f"{row['gap']:.2f}", *late, ", ".join(early) or "none"])
    unlearned = len(part_of(runs, "unlearned", onsets=True))
    left_out = f"Left out because their cue was not learned in the epochs that were left: {unlearned}."
    head = ["training", "swap gap", "epochs to alert", "without masks", "alerts before the onset"]
    return (_table(head, rows) if rows else "None yet.") + f"\n\n{left_out}"


def _rivals(runs: Sequence[Row]) -> str:
    rows = [
        [name, *("" if each is None else _share(each) if each["n"] else "not run" for each in of.values())]
        for name, of in rivals(runs).items()
    ]
    return _table(["", "healthy", "decides", "beside", "onsets within 3 epochs"], rows)


def _misses(runs: Sequence[Row]) -> str:
    missed = [row for row in part_of(runs, "decides") if not row["alarms"]["with masks"]]
    false = [row for row in healthy_of(runs) if row["alarms"]["with masks"]]
    words = [f"Cues that decide and raised no alert with default settings and masks: {len(missed)}."]
    words += [f"- `{row['id']}`: swap gap {row['gap']:.2f}; {_numbers(row)}" for row in missed]
    words += ["", f"Healthy trainings with an alert: {len(false)}."]
    for row in false:
        named = ", ".join(f"{name} at epoch {epoch}" for epoch, name in row["alarms"]["with masks"])
        words.append(f"- `{row['id']}`: {named}; {_numbers(row)}")
    return "\n".join(words)


def _numbers(row: Row) -> str:
    """The share of the object, and what came nearest to its threshold."""
    share = row["object_share"]
    nearest = sorted(
        (
            (value / ABOVE[name], name, value)
            for name, value in row["reached"].items()
            if value is not None and ABOVE.get(name)
        ),
        reverse=True,
    )[:2]
    close = ", ".join(f"{name} reached {value:.1f} of {ABOVE[name]:.1f}" for _, name, value in nearest)
    if share["mean"] is None:
        return f"no object_share; {close}"
    return f"object_share {share['mean']:.2f} ({_number(share['low'])} to {_number(share['high'])}); {close}"


def _number(value: float | None) -> str:
    return "?" if value is None else f"{value:.2f}"


def _share(of: Mapping[str, Any]) -> str:
    if of["n"] == 0:
        return "none"
    return f"{of['k']} of {of['n']}, {of['share']:.0%} ({of['low']:.0%} to {of['high']:.0%})"


def _fraction(rows: Sequence[Row], holds: Callable[[Row], bool | None]) -> str:
    of = counted(rows, holds)
    return f"{of['k']}/{of['n']}" if of["n"] else ""


def _table(head: Sequence[Any], rows: Sequence[Sequence[Any]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)
