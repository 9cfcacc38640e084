"""The list of all numbers: a line here makes a function a metric, and says how to read it everywhere."""

from __future__ import annotations

from cam_engine.metrics.agreement import consensus, consensus_by_chance
from cam_engine.metrics.drift import (
    centroid_shift,
    correlation,
    jensen_shannon,
    similarity,
    spearman,
    ssim,
    top_overlap,
    wasserstein,
)
from cam_engine.metrics.faithfulness import average_drop, confidence_increase, deletion, insertion, road
from cam_engine.metrics.localisation import enrichment, on_target_mass, pixel_auc, pointing_game, rank_accuracy
from cam_engine.metrics.registry import Description, register_metric, register_number
from cam_engine.metrics.shape import border_enrichment, effective_share, entropy, gini, spread, top_mass

_BETWEEN, _ON, _SUSPECTED = ("maps", "reference"), ("maps", "region"), ("maps", "nuisance")
_FORWARDS = ("score", "images", "heatmaps")
_CHANCE = (1.0, "chance")

# -- measured at every look

register_metric(
    "drift_ref", jensen_shannon, _BETWEEN, default=True, title="drift from reference", range="0–1",
    meaning="Jensen–Shannon divergence from the reference look. 0 is the same focus, 1 disjoint; shaded: the noise floor.",
)  # fmt: skip
register_metric(
    "drift_prev", jensen_shannon, ("maps", "previous"), default=True, title="drift from previous", range="0–1",
    meaning="Jensen–Shannon divergence from the look before. Goes to 0 in a healthy run, and in one that learned a shortcut.",
)  # fmt: skip
register_metric(
    "on_target_enrichment", enrichment, _ON, default=True, title="on-target enrichment", range="0–1/area",
    worse="low", verdict=True, neutral=1.0, mark=_CHANCE,
    meaning="Attention on the target against its share, both summed over images. 1 is chance, below 1 looks elsewhere.",
)  # fmt: skip
register_metric(
    "nuisance_enrichment", enrichment, _SUSPECTED, default=True, title="nuisance enrichment",
    range="0–1/area", verdict=True, neutral=1.0, mark=_CHANCE,
    meaning="Attention on what should not decide against its share, both summed over images. 1 is chance.",
)  # fmt: skip
register_metric(
    "entropy", entropy, default=True, title="entropy", range="0–1", neutral=1.0,
    meaning="How spread out the focus is, as a share of ln n: depends on the grid. 0 is one cell, 1 is everywhere.",
)  # fmt: skip
register_metric(
    "effective_share", effective_share, default=True, title="effective share", range="1/n–1", neutral=1.0,
    meaning="Share of the cells that the focus effectively covers, exp(H)/n: comparable between grids. 1 is everywhere.",
)  # fmt: skip
register_metric(
    "consensus", consensus, default=True, title="consensus", range="0–1", neutral=1.0,
    meaning="How alike each map is to the others' mean. High only where it is well above what diffuse maps reach by chance.",
)  # fmt: skip
register_metric(
    "consensus_chance", consensus_by_chance, default=True, title="consensus by chance", range="0–1", neutral=1.0,
    meaning="The consensus that the same maps reach with their places shuffled: as diffuse, with no place in common.",
)  # fmt: skip
register_metric(
    "centroid_shift", centroid_shift, _BETWEEN, default=True, title="centroid shift", range="0–1",
    meaning="How far the centre of focus moved since the reference. 1 is from corner to corner.",
)  # fmt: skip

# -- between the reference and now

register_metric(
    "correlation", correlation, _BETWEEN, worse="low", neutral=1.0, range="−1–1",
    meaning="Pearson correlation with the reference. 1 is the same focus.",
)  # fmt: skip
register_metric(
    "similarity", similarity, _BETWEEN, worse="low", neutral=1.0, range="0–1",
    meaning="Mass that both share, SIM. 1 is the same focus, 0 has nothing in common.",
)  # fmt: skip
register_metric(
    "spearman", spearman, _BETWEEN, worse="low", neutral=1.0, range="−1–1", title="rank correlation",
    meaning="Spearman's correlation with the reference. 1 is the same order of cells.",
)  # fmt: skip
register_metric(
    "ssim", ssim, _BETWEEN, worse="low", neutral=1.0, range="−1–1", title="SSIM",
    meaning="Structural similarity to the reference, of the maps as pictures. 1 is the same picture.",
)  # fmt: skip
register_metric(
    "top_overlap", top_overlap, _BETWEEN, worse="low", neutral=1.0, range="0–1", title="overlap of the top 20 %",
    meaning="Intersection over union of the strongest cells, now and at the reference. 1 is the same cells.",
)  # fmt: skip
register_metric(
    "wasserstein", wasserstein, _BETWEEN, range="0–1", title="Wasserstein-1",
    meaning="How far mass travelled since the reference. 1 is the whole diagonal.",
)  # fmt: skip

# -- of a single map

register_metric(
    "gini", gini, worse="low", range="0–1", title="Gini index",
    meaning="How unevenly mass is spread. 0 is evenly, towards 1 all in one cell.",
)  # fmt: skip
register_metric(
    "spread", spread, neutral=1.0, range="0–1",
    meaning="Distance of mass from its centre. 0 is one place, 1 two opposite corners; a uniform map has 0.58.",
)  # fmt: skip
register_metric(
    "border_enrichment", border_enrichment, neutral=1.0, range="0–2.8", mark=_CHANCE,
    meaning="Mass along the image's edge against its share. 1 is chance; far above, the model reads padding or corners.",
)  # fmt: skip
register_metric(
    "top_mass", top_mass, worse="low", range="0.1–1", title="mass of the top 10 %",
    meaning="Mass of the strongest tenth of the cells. 0.1 is uniform, 1 is all in a few cells.",
)  # fmt: skip

# -- on a region

register_metric(
    "on_target_mass", on_target_mass, _ON, worse="low", verdict=True, range="0–1", title="on-target mass",
    meaning="Share of the focus that lies on the target: the energy-based pointing game.",
)  # fmt: skip
register_metric(
    "pointing_game", pointing_game, _ON, worse="low", verdict=True, range="0–1",
    meaning="Share of images whose strongest cell hits the target; ties share the credit.",
)  # fmt: skip
register_metric(
    "rank_accuracy", rank_accuracy, _ON, worse="low", verdict=True, range="0–1",
    meaning="Share of the strongest cells, as many as the target has, that lie on it.",
)  # fmt: skip
register_metric(
    "pixel_auc", pixel_auc, _ON, worse="low", verdict=True, neutral=0.5, range="0–1", title="pixel AUC",
    mark=(0.5, "chance"),
    meaning="Area under the ROC curve of the map as a classifier of cells. 0.5 is chance, 1 every target cell above all others.",
)  # fmt: skip
register_metric(
    "nuisance_mass", on_target_mass, _SUSPECTED, verdict=True, range="0–1",
    meaning="Share of the focus that lies on what should not decide.",
)  # fmt: skip

# -- what the model does with what a map shows

register_metric(
    "average_drop", average_drop, _FORWARDS, verdict=True, neutral=1.0, range="0–1",
    meaning="Confidence lost when only the highlighted part is shown. 0 is none: that part is enough.",
)  # fmt: skip
register_metric(
    "confidence_increase", confidence_increase, _FORWARDS, worse="low", verdict=True, range="0–1",
    meaning="Share of images that the model is surer of from the highlighted part alone.",
)  # fmt: skip
register_metric(
    "insertion", insertion, _FORWARDS, worse="low", verdict=True, range="0–1",
    meaning="Confidence as pixels come back, the hottest first. High: it recovers early.",
)  # fmt: skip
register_metric(
    "deletion", deletion, _FORWARDS, verdict=True, neutral=1.0, range="0–1",
    meaning="Confidence as pixels go, the hottest first. Low: it is lost early.",
)  # fmt: skip
register_metric(
    "road", road, _FORWARDS, worse="low", verdict=True, range="−½–½", title="ROAD", mark=(0.0, "alike"),
    meaning="How much more the score loses with the hottest pixels than with the coldest. At 0 they matter alike.",
)  # fmt: skip

# -- derived from metrics, and measured of all images together

for _number in (
    Description(
        name="focus_drift", title="focus drift", range="about 0–1", mark=(0.0, "calm"),
        meaning="Movement since the reference beyond what a calm focus moves between looks. 0: no more than that, 1: disjoint.",
    ),
    Description(
        name="flip_rate", title="flip rate", range="0–1", measured='with `target="predicted"`',
        meaning="Share of images whose prediction is not that of the reference.",
    ),
    Description(
        name="drift_flipped", title="drift where flipped", range="0–1", measured='with `target="predicted"`',
        meaning="Drift from the reference of images whose prediction changed.",
    ),
    Description(
        name="drift_unflipped", title="drift where not flipped", range="0–1", measured='with `target="predicted"`',
        meaning="Drift from the reference of images whose prediction stayed.",
    ),
    Description(
        name="valid_frac", title="valid maps", range="0–1", worse="low", verdict=True,
        meaning="Share of probe images with a map.",
    ),
    Description(
        name="max_t_p", title="max-t p-value", range="0–1", worse="low", neutral=1.0, mark=(0.01, "p 0.01"),
        meaning="Of the test whether two fixed networks look alike. Small: they do not; no false-alarm rate of a training.",
    ),
    Description(
        name="max_t", title="max-t", range="≥ 0",
        meaning="The largest paired t of any cell against the reference, over images.",
    ),
    Description(
        name="noise_floor", title="noise floor", range="0–1",
        meaning="Divergence that faint noise in the images causes by itself.",
    ),
    Description(
        name="ceiling", title="ceiling", range="0–1", neutral=1.0,
        meaning="Divergence between maps of different images.",
    ),
    Description(
        name="reference_set", title="reference set", range="0 or 1", worse="low",
        meaning="1 once drift is measured against the reference that was asked for.",
    ),
    Description(
        name="counterfactual_gap", title="counterfactual gap", range="−1–1", verdict=True,
        measured="with `counterfactual=`",
        meaning="Accuracy with the cue minus accuracy without it. 0 does not use it, towards 1 needs it.",
    ),
    Description(
        name="object_share", title="object share", range="0–1", worse="low", verdict=True, neutral=0.5, mark=(0.5, "even"),
        measured="with masks or boxes",
        meaning="Who wins when an object stands in another image's scene. Below ½ the scene decides.",
    ),
    Description(
        name="follows_object", title="follows the object", range="0–1", worse="low", verdict=True,
        measured="with masks or boxes",
        meaning="How often the prediction goes with the object into another image.",
    ),
    Description(
        name="follows_background", title="follows the background", range="0–1", verdict=True,
        measured="with masks or boxes",
        meaning="How often the prediction stays with the scene when another image's object stands in it.",
    ),
    Description(
        name="follows_nuisance", title="follows the suspected region", range="0–1", verdict=True,
        measured="with `nuisance=`",
        meaning="How often the suspected region carries the class into another image.",
    ),
    Description(
        name="follows_frame", title="follows the frame", range="0–1", verdict=True,
        meaning="How often the outermost pixels carry the class into another image.",
    ),
    Description(
        name="follows_detail", title="follows fine detail", range="0–1",
        meaning="How often fine detail carries the class. What is healthy depends on the task.",
    ),
    Description(
        name="follows_focus", title="follows the focus", range="0–1", worse="low",
        meaning="How often the places where the map is highest carry the class into another image.",
    ),
    Description(
        name="follows_random", title="follows random places", range="0–1",
        meaning="The same for random places of that size: a map that does no more does not show what decides.",
    ),
    Description(
        name="follows_coarse", title="follows coarse structure", range="0–1", measured="asked for",
        meaning="How often coarse structure carries the class.",
    ),
    Description(
        name="follows_spectrum", title="follows the spectrum", range="0–1", measured="asked for",
        meaning="How often the amplitudes of the spatial frequencies carry the class.",
    ),
    Description(
        name="follows_colour", title="follows the colour", range="0–1", measured="asked for",
        meaning="How often brightness and contrast of each channel carry the class.",
    ),
    Description(name="exchange_seconds", title="seconds of exchanges", range="≥ 0", meaning="What the exchange tests took."),
    Description(
        name="failed_looks", title="failed looks", range="≥ 0", verdict=True, meaning="Looks that raised an error.",
    ),
    Description(name="seconds", title="seconds a look", range="≥ 0", meaning="What one look cost."),
    Description(
        name="overhead", title="overhead", range="0–1",
        meaning="Share of the training's time that looks took so far.",
    ),
):  # fmt: skip
    register_number(_number)
