"""From the records of finished runs to figures: what each run ended with, its alerts, and what drift tells apart."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import ttest_1samp
from sklearn.metrics import roc_auc_score

from cam_callbacks.keys import metric_name
from cam_callbacks.look.alerts import FocusMoved, Rule, judge, make_rules
from cam_callbacks.look.measurement import Measurement
from cam_callbacks.records import Alert, Record, RecordStore
from cam_callbacks.records.files import to_json, write_atomically
from cam_engine import metrics
from cam_engine.metrics import MaxT, coverage, enrichment, max_t, mean
from shortcut.arms import ARMS, ONSET

Array = NDArray[np.float64]

DEFAULTS = ("eigencam", "gradcam")  # methods of the callback, where it is told nothing
LAST = ("on_target_enrichment", "nuisance_enrichment", "entropy", "consensus", "drift_ref", "noise_floor", "max_t_p")

# Distances of two batches of maps (N, h, w), so that 0 is the same focus: (N,).
DRIFTS: dict[str, Callable[[Any, Any], Array]] = {
    "Jensen–Shannon": metrics.jensen_shannon,
    "1 − CC": lambda maps, others: 1 - metrics.correlation(maps, others),
    "1 − SIM": lambda maps, others: 1 - metrics.similarity(maps, others),
    "1 − Spearman": lambda maps, others: 1 - metrics.spearman(maps, others),
    "1 − SSIM": lambda maps, others: 1 - metrics.ssim(maps, others),
    "1 − IoU of the top 20 %": lambda maps, others: 1 - metrics.top_overlap(maps, others),
    "centroid shift": metrics.centroid_shift,
    "Wasserstein-1": metrics.wasserstein,
}
SLOW = ("Wasserstein-1",)  # measured for the default methods only
# What maps are compared with: the run's own reference, as a user has it; the look before the onset, the same for both
# runs; the first look.
REFERENCES = ("settled", "before", "first")
# Parts of *focus moved*, as rules by themselves.
PARTS = {
    "p": FocusMoved(effect=0, floors=0, drift=0),
    "drift": FocusMoved(p=1.1, effect=0),
    "p and drift": FocusMoved(effect=0),
}


@dataclass(frozen=True, eq=False)
class Run:
    """A finished run, its records in memory."""

    folder: Path
    arm: str
    seed: int
    about: Mapping[str, Any]
    looks: list[Record]
    manifest: Mapping[str, Any]
    probe: Mapping[str, NDArray[Any]]

    @classmethod
    def read(cls, folder: Path) -> Run:
        about, store = json.loads((folder / "run.json").read_text()), RecordStore(folder / "cam")
        return cls(
            folder, about["arm"]["name"], about["settings"]["seed"], about, list(store), store.manifest, store.probe
        )

    @property
    def methods(self) -> list[str]:
        return list(self.manifest["methods"])

    @property
    def layer(self) -> str:
        return str(self.manifest["layers"][0])

    def maps(self, look: int, method: str) -> NDArray[np.float32]:
        return self.looks[look].maps[method, self.layer]

    def curve(self, metric: str, method: str) -> list[float]:
        """A number over the looks."""
        return [look.metrics[f"cam/{metric}/{metric_name(method)}"] for look in self.looks]

    def reference(self, method: str, look: int = -1) -> dict[str, Any]:
        """What a look's drift is measured against."""
        return self.looks[look].reference[f"{method}/{self.layer}"]

    def reference_set(self, method: str, look: int = -1) -> bool:
        """Is a look's drift measured against the settled reference, and no stand-in?"""
        return bool(self.looks[look].metrics[f"cam/reference_set/{metric_name(method)}"])

    def ended(self, method: str) -> dict[str, float]:
        """Numbers of the last look."""
        return {metric: self.curve(metric, method)[-1] for metric in LAST}

    def reference_look(self, method: str, against: str) -> int | None:
        """The look that one of :data:`REFERENCES` stands for; None where the reference has not settled."""
        if against == "settled":
            return int(self.reference(method)["look"]) if self.reference_set(method) else None
        return {"before": min(ONSET, len(self.looks)) - 1, "first": 0}[against]


def drifts(folder: Path) -> dict[str, float | None]:
    """Mean distance of a run's last maps from its references, as ``<method>/<drift>/<reference>``.

    Kept beside the run in ``drifts.json``, so that it is measured once.
    """
    cache = folder / "drifts.json"
    if cache.is_file():
        return json.loads(cache.read_text(encoding="utf-8"))
    run = Run.read(folder)
    found: dict[str, float | None] = {}
    for method, against, (name, distance) in product(run.methods, REFERENCES, DRIFTS.items()):
        look = run.reference_look(method, against)
        if look is not None and (name not in SLOW or method in DEFAULTS):
            found[f"{method}/{name}/{against}"] = mean(distance(run.maps(-1, method), run.maps(look, method)))
    write_atomically(cache, to_json(found).encode())
    return found


def replay(run: Run, rules: Sequence[Rule] | None = None, methods: Sequence[str] = DEFAULTS) -> list[Alert]:
    """The alerts that rules raise over recorded looks, each at the look at which it was raised."""
    raised: list[Alert] = []
    states: dict[tuple[str, str, str], Any] = {}
    for look in run.looks:
        measured = {(method, run.layer): _measurement(run, look, method) for method in methods}
        states, alerts = judge(
            rules or make_rules(None), states, measured, look.look, look.epoch, run.manifest["probe"]["ids"]
        )
        raised += [alert for alert in alerts if alert.new]
    return raised


def _measurement(run: Run, look: Record, method: str) -> Measurement:
    """What the rules judged of a look."""
    key, reference = (method, run.layer), run.reference(method, look.look)
    compared = run.maps(reference["look"], method)
    numbers = {k.split("/")[1]: v for k, v in look.metrics.items() if k.endswith(f"/{metric_name(method)}")}
    per_image = {k.split("/")[0]: v for k, v in look.per_image.items() if k.endswith(f"/{metric_name(method)}")}
    both = np.isfinite(per_image["drift_ref"])
    moved = MaxT(look.t_maps[key], numbers["max_t"], numbers["max_t_p"], int(both.sum()))
    then = enrichment(compared, coverage(run.probe["masks"], compared.shape[1:]))
    settled = bool(numbers["reference_set"])
    return Measurement(look.look, settled, settled, numbers, per_image, then, reference["floor"], moved)


def summarise(runs: Sequence[Run]) -> dict[str, Any]:
    """The figures that the page and its claims rest on, as JSON holds them."""
    of = {arm: [run for run in runs if run.arm == arm] for arm in ARMS}
    return {
        "settings": {**runs[0].about["settings"], "seed": sorted({run.seed for run in runs})},
        "versions": {name: runs[0].about[name] for name in ("python", "torch", "lightning")},
        "seconds": float(np.median([run.about["seconds"] for run in runs])),
        "runs": [_figures(run) for run in runs],
        "methods": runs[0].methods,
        "separation": separation(of["clean"], of["clean-constant"], of["onset"]),
    }


def _figures(run: Run) -> dict[str, Any]:
    accuracy = run.looks[-1].user_metrics
    plain = {
        method: [{"name": a.name, "epoch": a.epoch} for a in replay(run, methods=[method])] for method in run.methods
    }
    return {
        "arm": run.arm,
        "seed": run.seed,
        "val_acc": accuracy["val_acc"],
        "val_acc_swapped": accuracy["val_acc_swapped"],
        "settled": {method: run.reference_look(method, "settled") for method in run.methods},
        "ended": {method: run.ended(method) for method in run.methods},
        "moved": {method: moved_since_before(run, method) for method in DEFAULTS},
        "margins": {method: margins(run, method) for method in DEFAULTS},
        "alerts": plain,
        "parts": {part: bool(replay(run, [rule])) for part, rule in PARTS.items()},
    }


def moved_since_before(run: Run, method: str) -> dict[str, float]:
    """What max-t says of the last maps against those before the onset: largest gain and loss of a cell (t), p, and the mean
    drift."""
    now, before = run.maps(-1, method), run.maps(min(ONSET, len(run.looks)) - 1, method)
    test = max_t(now, before)
    return {
        "gain": float(test.t.max()),
        "loss": float(test.t.min()),
        "p": test.p,
        "drift": mean(metrics.jensen_shannon(now, before)),
    }


def margins(run: Run, method: str) -> dict[str, float]:
    """The most alarming value that each rule's number took after the reference had settled; NaN if it never did.

    ``enrichment``: lowest. ``fall``: largest fall of enrichment since the reference, as a share, and ``t``: lowest paired t.
    ``drift``: largest drift_ref over the level that *focus moved* asks for. ``effect``: largest |t|/√n of max-t.
    ``entropy``: highest.
    """
    settled = [m for m in (_measurement(run, look, method) for look in run.looks) if m.settled]
    if not settled:
        return dict.fromkeys(("enrichment", "fall", "t", "drift", "effect", "entropy"), float("nan"))
    rule = FocusMoved()
    falls = [fall(m.per_image["on_target_enrichment"], m.target_at_reference) for m in settled]
    return {
        "enrichment": min(m.numbers["on_target_enrichment"] for m in settled),
        "fall": max(share for share, _ in falls),
        "t": min(t for _, t in falls),
        "drift": max(m.numbers["drift_ref"] / max(rule.floors * m.floor, rule.drift) for m in settled),
        "effect": max(m.moved.statistic / m.moved.n**0.5 for m in settled),
        "entropy": max(m.numbers["entropy"] for m in settled),
    }


def fall(now: Array, then: Array) -> tuple[float, float]:
    """Of an enrichment (N,) since the reference: fall of the mean as a share, and the paired t over images."""
    change = (now - then)[np.isfinite(now - then)]
    before = then[np.isfinite(now - then)].mean()
    return float(-change.mean() / before), float(ttest_1samp(change, 0).statistic) if change.any() else 0.0


def separation(clean: Sequence[Run], others: Sequence[Run], onset: Sequence[Run]) -> dict[str, Any]:
    """How far the onset stands out at the last look, as ``<method>/<drift>/<reference>``.

    ``ratio``: mean over seeds of onset over that of ``clean``. ``auc``: of onset against ``clean`` and ``others``
    together. Runs whose reference has not settled have no settled drift, and are left out there; ``runs`` says how many of
    each kind counted. What cannot be said is None.
    """
    values = [[drifts(run.folder) for run in runs] for runs in (clean, others, onset)]
    result = {}
    for method, name, against in product(clean[0].methods, DRIFTS, REFERENCES):
        key = f"{method}/{name}/{against}"
        same, other, late = ([run[key] for run in kind if run.get(key) is not None] for kind in values)
        healthy = same + other
        truth = [0] * len(healthy) + [1] * len(late)
        result[key] = {
            "ratio": float(np.mean(late) / np.mean(same)) if late and any(same) else None,
            "auc": float(roc_auc_score(truth, healthy + late)) if late and healthy else None,
            "runs": [len(healthy), len(late)],
        }
    return result
