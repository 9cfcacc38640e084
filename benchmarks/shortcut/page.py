"""docs/evidence.md, from the figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from cam_callbacks.look.alerts import FocusMoved
from shortcut import tables
from shortcut.arms import ARMS, ONSET
from shortcut.claims import listed, runs_of
from shortcut.figures import DEFAULTS, DRIFTS, PARTS, SLOW
from shortcut.tables import ended, spread

CALIBRATED_ON = (0, 1, 2)  # seeds by which the effect that *focus moved* asks for was set


def page(summary: Mapping[str, Any]) -> str:
    """The whole page."""
    made_with, seeds = summary["settings"], summary["settings"]["seed"]
    return f"""# Evidence: a planted shortcut

Written by `make evidence`; do not edit. The figures: [planted_shortcut.json](../benchmarks/results/planted_shortcut.json).

Does a focus signal show a shortcut that accuracy hides, and is it silent where nothing is wrong? Here the truth is
known, because the shortcut was planted. A focus signal says where class activation maps lie: where in the image a
network's evidence comes from, not why. No map can reveal a cue that nobody can see.

## The experiment

Handwritten digits on photographs, 48×48, with a coloured cue, as in `cam-callbacks demo`. The same small network
({made_with["train_images"]} images, {made_with["epochs"]} epochs, Adam) is trained in {len(ARMS)} ways with {len(seeds)} seeds
each. A seed decides scenes, probe, weights and order. Epochs count from 0; until epoch {ONSET} `onset` is `clean`, image by
image.

{tables.arms()}

`CAMCallback` watches 100 probe images after each epoch, with default settings and {len(summary["methods"])} methods. On the
probe the cue tells the class, in every run. The digit's square is the target (chance: 1/4 of the map), the tag's the
nuisance (chance: 1/36); in `tint`, where there is no tag, the nuisance is that corner all the same.

![Accuracy, focus and drift over the epochs](evidence_runs.png)

*A line for each seed. Blue: accuracy with the cue as in training, enrichment on the digit. Red: accuracy with colours that
lie, enrichment on the tag. Black: drift from the settled reference. Triangles: alerts, a row for each seed.*

![Images, GradCAM after the last epoch, the mean map and the t map](evidence_maps.png)

*Seed {seeds[0]}: probe images with their GradCAM after the last epoch, the mean of all maps, and in which cells focus was
gained (red) or lost (blue) since epoch {ONSET - 1}.*

## What was found

After the last epoch, mean (lowest to highest) over seeds; drift_ref where the reference has settled:

{tables.outcomes(summary)}

Asserted for every seed, with GradCAM where nothing else is said:

{tables.judged(summary)}

The alerts of the default methods:

{tables.alerts(summary)}

## Which method

{tables.methods(summary)}

With global average pooling and one linear layer `gradcam`, `xgradcam`, `hirescam`, `shapleycam` and `cam` are the same map.
`gradcam++`, `layercam`, `gradcam_elementwise`, `fem` and `smoothgradcam++` start from maps that are nearly the same everywhere:
they change by less than 0.05 a look while the network still learns, so the reference "settles" within the first epochs and
the learning itself is then taken for a move. For these, give a finished run as the reference, or `alerts=` without
*focus moved*. The level at which a focus counts as calm, max(3F, 0.05), suits the default methods.

## Which drift tells the onset apart

Drift at the last look: onset over clean (means over seeds), and in brackets the AUC of the onset runs against both clean
arms. Against three references: the settled one, which a user has (runs without one are left out); epoch {ONSET - 1}, the
last before the cue; the first look.

{tables.separation(summary)}

![Every method and drift](evidence_separation.png)

*Every method: onset over clean, and below it the AUC. Red: the onset stands out.*

{_best(summary)}

## How the alerts were calibrated

{_calibration(summary)}

## What it does not see

{_limits(summary)}

## What you may conclude, and what not

- A network that takes up a cue like this one (small, at one place, decisive) moves its focus there, much further than a
  healthy training moves it, and the default alerts say so while validation accuracy rises.
- The levels (2, 3, 0.05, …) are those of one small network, one kind of image and {len(seeds)} seeds. An AUC of 1 means that
  {len(seeds)} runs lay apart from {2 * len(seeds)}, no more.
- A callback that is silent does not say that a model is right. Nor is an alert a verdict: look at the overlays.
- What settles the question is accuracy with the cue changed. A focus signal tells you which cue to change.

## How it was made

```sh
make evidence    # {len(summary["runs"])} trainings of about {summary["seconds"]:.0f} s on one core each
```

Runs that are finished are kept in `runs/evidence`, and the page is written again from them in seconds.

- seeds {_and(seeds)}
- Python {summary["versions"]["python"]}, torch {summary["versions"]["torch"]}, Lightning {summary["versions"]["lightning"]}
- {summary["machine"]}
"""


def _best(summary: Mapping[str, Any]) -> str:
    methods = [method for method in summary["methods"] if method != "randomcam"]

    def cell(method: str, drift: str, against: str) -> dict[str, Any]:
        return summary["separation"][f"{method}/{drift}/{against}"]

    best = [max(DRIFTS, key=lambda drift: cell(m, drift, "before")["ratio"] or 0) for m in methods]
    counts = ", ".join(f"{drift} for {best.count(drift)}" for drift in DRIFTS if drift in best)
    perfect = {
        drift: sum(cell(m, drift, "before")["auc"] == 1 for m in methods) for drift in DRIFTS if drift not in SLOW
    }
    listed_auc = ", ".join(f"{drift} {count}" for drift, count in perfect.items())
    return f"""Against epoch {ONSET - 1} the ratio is largest with {counts} of {len(methods)} methods (`randomcam`, the floor,
is not counted). The AUC is 1 for this many of them:
{listed_auc}.
The first look is no reference for a network that starts from random weights."""


def _calibration(summary: Mapping[str, Any]) -> str:
    clean = runs_of(summary, "clean") + runs_of(summary, "clean-constant")
    parts = {part: sum(run["parts"][part] for run in clean) for part in PARTS}
    rule = FocusMoved()
    held_out = [seed for seed in summary["settings"]["seed"] if seed not in CALIBRATED_ON]
    after = f" Held out, and run after that: {_and(held_out)}." if held_out else ""
    return f"""The rules of `cam_callbacks.look.alerts` were run over the records of every look, with their default
thresholds. (Records hold the numbers that rules see: other thresholds can be tried in seconds, and the rules of a training
give the alerts that its callback raised.) Both clean arms have to stay silent on every seed, also the one with the
constant learning rate, whose focus never comes to rest. Below are the most alarming values of all looks after the reference
had settled; a rule has to see them at two looks running.

{tables.margins(summary)}

*Focus moved* needs three conditions. In {len(clean)} clean runs p below {rule.p:g} alone would have raised it
{parts["p"]} times: with 100 images the test sees the slightest common change. Drift alone would have raised it
{parts["drift"]} times, and both together still {parts["p and drift"]} times: a healthy focus goes on moving a little, in the same
direction on many images. What sets the shortcut apart is how strong the common change is: the effect, max-t's largest
|t| over √n, which does not grow with the number of images. Its threshold, {rule.effect:g}, lies midway between the clean runs and
the first alarming looks of the onset runs with seeds {_and(CALIBRATED_ON)}.{after} No other threshold was changed."""


def _limits(summary: Mapping[str, Any]) -> str:
    tint, onset = runs_of(summary, "tint"), runs_of(summary, "onset")
    looks = {method: listed([run["settled"][method] for run in onset]) for method in DEFAULTS}
    return f"""**A diffuse cue.** A tint of the whole image decides everything: accuracy is {spread([r["val_acc"] for r in tint])},
with the tints swapped {spread([r["val_acc_swapped"] for r in tint])}. It is not localised by any CAM, for there is no place to
point at: GradCAM's enrichment is {ended(tint, "gradcam", "on_target_enrichment")} on the digit and
{ended(tint, "gradcam", "nuisance_enrichment")} on the corner. The hint is an entropy above 0.95: GradCAM's is
{ended(tint, "gradcam", "entropy")}, and *diffuse* says so. EigenCAM's is {ended(tint, "eigencam", "entropy")}, which is no hint.

**A cue that moves.** Max-t asks whether the *same cells* gained focus in many images. The tag that moves takes as much of
the focus as the one in the corner, but no cell gains much more than in a clean run, and *focus moved* is not raised. After
the last epoch, compared with epoch {ONSET - 1}:

{tables.max_t(summary)}

A small p says no more here than that focus has left the middle of the images, where the digits are more often; where
focus was gained, it does not say. With a mask of the cue or of the target the enrichments see it; without one, look at the
pictures.

**A cue that comes before the focus has settled.** Drift is measured from the settled reference. In the `onset` runs that
was look {looks["eigencam"]} with EigenCAM and {looks["gradcam"]} with GradCAM. From look {ONSET} on the reference has
the cue in it: drift from it is small, and *focus moved* has little to say. The columns for epoch {ONSET - 1} above show what the
same maps say against a reference from before. With the records of an earlier, healthy run as the reference
(`reference="<folder>"`) there is no such gap. *Off target* needs no reference, but stays silent as long as the target keeps
more than its share of the focus, as it does in `onset`; a suspected region has `nuisance_enrichment`, without an alert."""


def _and(seeds: Sequence[int]) -> str:
    return ", ".join(map(str, seeds[:-1])) + f" and {seeds[-1]}" if len(seeds) > 1 else str(seeds[0])
