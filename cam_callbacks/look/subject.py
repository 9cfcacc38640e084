"""What is looked at: a model, how it is called, its layers, and the score that is explained. Made once a run."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from cam_callbacks.agreement import out_of_memory
from cam_callbacks.look.batches import Batches
from cam_callbacks.look.calling import Calling, calling_of, failed_call
from cam_callbacks.look.detection import ProbeBoxTarget
from cam_callbacks.look.hints import hints_of
from cam_callbacks.look.judgement import FEWEST_CELLS
from cam_callbacks.look.options import LookOptions
from cam_callbacks.look.recognise import recognise
from cam_callbacks.look.scores import scores_of
from cam_callbacks.look.target import Target, fixed_classes
from cam_callbacks.look.task import Detection, Task
from cam_callbacks.probe import ProbeSet
from cam_callbacks.records import Maps
from cam_engine import CAM
from cam_engine.capture import capture, rescore
from cam_engine.detect import Family, family_of
from cam_engine.layers import available_layers, encoder_layer, layers_within
from cam_engine.methods import get_method

COARSE = 4  # cells of a map that shows no more than a quarter
FEW = 2  # images that tell the task: with one alone a batch is not told from what it holds


@dataclass(frozen=True, eq=False)
class Subject:
    """The model of a run, ready to be explained.

    ``given``: as it was handed over. ``cam``: explains it, or the detector that it is or holds (``family``, else None).
    ``layers``: names of the layers that are watched, ``modules``: which these are. ``task``: the score that is explained, and
    what the model says. ``batches``: how many images at once. ``calling``: how the model is called with them.
    """

    given: nn.Module
    cam: CAM
    layers: tuple[str, ...]
    modules: tuple[nn.Module, ...]
    task: Task
    batches: Batches
    calling: Calling
    family: Family | None = None

    def is_of(self, model: nn.Module) -> bool:
        """Was this made of that very model, and are its layers still parts of it?"""
        return model is self.given and {self.cam.model, *self.modules} <= set(model.modules())

    def class_scores(self, images: Tensor, rows: Sequence[int]) -> Any:
        """What the model says of images (B, C, H, W), versions of the probe's in ``rows``: class scores (B, K) of a classifier."""
        placed = _as_it_takes(self.cam.model, images)
        return self.cam.scores_of(rescore(self.cam.model, placed, forward=self.calling.of(rows)))

    def within_image(self, maps: Tensor, outputs: Any) -> Tensor:
        """The part (B, h', w') of maps (B, h, w) that lies on the image, where a detector pads images at the bottom right."""
        high, wide = (1.0, 1.0) if self.family is None else self.family.canvas(outputs)
        return maps[:, : max(1, round(maps.shape[1] / high)), : max(1, round(maps.shape[2] / wide))]


def subject_of(
    model: nn.Module,
    probe: ProbeSet,
    options: LookOptions,
    known_layers: Sequence[str] = (),
    batches: Batches | None = None,
    task: Task | None = None,
) -> Subject:
    """How to look at a model. What the user chose stays; the rest is the detector's, if the model is or holds one, or its task's.

    A detector's default layers are all inputs of its head, since a single one is blank for objects of another size;
    its default target is :class:`~cam_callbacks.look.detection.ProbeBoxTarget`.

    Args:
        model: The model.
        probe: The images; some of them go through the model where its task or its layers are to be told.
        options: What was asked for.
        known_layers: Those of this run's earlier looks, which stay.
        batches: Of this run's earlier looks.
        task: Of this run's earlier looks.

    Raises:
        ValueError: The task cannot be told, or does not go with the options.
    """
    inner, layers, forward, reshape = model, options.layers, options.forward, options.reshape
    family = _detector_in(model) if forward is None else None
    if family is not None:
        every_input = isinstance(layers, str) and layers == "auto"
        height, width = probe.images.shape[-2:]
        inner, forward = family.model, family.forward
        layers = family.layers() if every_input else layers_within(model, inner, layers)
        reshape = reshape or family.reshape((height, width))
        calling = Calling(None, None, None, forward)  # a detector takes images
        task = _detection(probe, family, options)
    else:
        calling = calling_of(model, probe, forward)
        task = _task_of(model, probe, options, calling) if task is None else task
    if layers == "auto" and not task.has_score and not known_layers:
        layers = encoder_layer(inner, _as_it_takes(inner, probe.images[:1]), forward=calling.of([0]))
    cam = CAM(
        inner,
        _methods_for(task, options),
        list(known_layers) or layers,
        forward=calling.of([0]),
        output=task.output,
        reshape=reshape,
        progress=False,
    )
    watched = cam.resolve(_as_it_takes(inner, probe.images[:1]))
    batches = Batches(options.batch_size) if batches is None else batches
    return Subject(model, cam, tuple(watched), tuple(watched.values()), task, batches, calling, family)


def coarse_words(subject: Subject, images: Tensor, maps: Maps) -> str | None:
    """That the maps of some layers hardly show a place, and which layer is finer; None where all of them show one.

    Args:
        subject: The model.
        images: The probe's.
        maps: (N, h, w) of each series.
    """
    coarse = {layer: of.shape[1:] for (_, layer), of in maps.items() if of[0].size <= COARSE}
    if not coarse:
        return None
    model = subject.cam.model
    listed = available_layers(model, _as_it_takes(model, images[:1]), forward=subject.calling.of([0]))
    finer = next((info for info in reversed(listed) if info.grid[0] * info.grid[1] >= FEWEST_CELLS), None)
    layers = ", ".join(f"{layer} has a grid of {'×'.join(map(str, grid))}" for layer, grid in coarse.items())
    advice = "larger images would give a finer one"
    if finer is not None:
        advice = f"layers={finer.name!r} has {'×'.join(map(str, finer.grid))}"
    return f"{layers} cells: its maps show no more than a quarter of the image; {advice}"


def _task_of(model: nn.Module, probe: ProbeSet, options: LookOptions, calling: Calling) -> Task:
    """Told by one recorded forward of a few images."""
    images = _as_it_takes(model, probe.images[:FEW])
    try:
        outputs = capture(model, images, [], record="from_images", forward=calling.of(range(len(images)))).outputs
    except Exception as error:  # of any kind: it is the model's
        if out_of_memory(error):
            raise
        raise failed_call(model, probe, options.forward, error) from error
    if callable(options.target) and options.output is None and not isinstance(outputs, Tensor):
        # The user's callable takes what the model returned, whatever that is; what it predicts is then not known.
        return Task("a score of yours: target= is explained", probe, options.target, None)
    scores = scores_of(outputs, probe, len(images), options.output)
    return recognise(scores, probe, options.target, hints_of(model, outputs, probe, calling))


def _detection(probe: ProbeSet, family: Family, options: LookOptions) -> Task:
    classes = fixed_classes(options.target, probe)
    target: Target = classes.tolist() if classes is not None else options.target
    words = "detection: how surely the true class of each true box is found is explained"
    if isinstance(options.target, str):
        return Detection(words, probe, ProbeBoxTarget(probe, family), options.output)
    return Detection("detection: target= is explained", probe, target, options.output)


def _methods_for(task: Task, options: LookOptions) -> list[str]:
    """The methods that were asked for; of a model without a score those that need none.

    Raises:
        ValueError: There is none.
    """
    names = list(options.method_names)
    without = [name for name in names if not get_method(name).explains_score]
    if task.has_score or len(without) == len(names):
        return names
    if not without:
        raise ValueError(f'{", ".join(names)} explain a score, and there is none: {task.words}; or methods="eigencam".')
    return without


def _detector_in(model: nn.Module) -> Family | None:
    """The detector that a model is, holds as its ``.model``, or as its only network under another name."""
    networks = [child for child in model.children() if any(True for _ in child.parameters())]
    for candidate in (model, *networks) if len(networks) == 1 else (model,):
        with suppress(TypeError):
            return family_of(candidate)
    return None


def _as_it_takes(model: nn.Module, images: Tensor) -> Tensor:
    """Images on the model's device and in its precision."""
    parameter = next((p for p in model.parameters() if p.is_floating_point()), None)
    return images if parameter is None else images.to(parameter.device, parameter.dtype)
