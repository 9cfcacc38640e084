"""Boxes that a person drew, taken by probe and callback."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from cam_callbacks import CAMCallback, ProbeSet
from cam_callbacks.boxes_file import read_boxes


@pytest.fixture
def write(tmp_path):
    def to_file(images, size=(24, 24), **more):
        file = tmp_path / "boxes.json"
        file.write_text(json.dumps({"format": 1, "size": list(size), "images": images} | more))
        return file

    return to_file


def test_boxes_are_found_by_id_and_scaled_to_the_probe(write):
    file = write({"b": {"boxes": [[0, 6, 12, 24]], "nuisance": [[0, 0, 2, 2]]}})
    marked = read_boxes(file, ["a", "b"], (48, 24))
    assert marked.boxes == [[], [(0, 12, 12, 48)]]
    assert marked.nuisance[1, :4, :2].all() and marked.nuisance.sum() == 8


def test_a_probe_takes_the_file(write):
    file = write({"0": {"boxes": [[0, 0, 12, 12]]}})
    probe = ProbeSet(torch.zeros(2, 3, 24, 24), boxes=file)
    assert probe.region_masks[0, :12, :12].all() and probe.region_masks.sum() == 144 and probe.nuisance is None
    again = ProbeSet(torch.zeros(2, 3, 24, 24), masks=np.ones((2, 24, 24), bool)).with_boxes(str(file))
    np.testing.assert_array_equal(again.region_masks, probe.region_masks)
    assert again.fingerprint == probe.fingerprint


def test_a_callback_marks_the_probe_that_it_takes_from_the_trainer(fit, write):
    first = CAMCallback(methods="gradcam", exchange=[], on_error="raise")
    fit(first, epochs=1)
    file = write({name: {"boxes": [[0, 0, 12, 12]]} for name in first.probe.ids})
    second = CAMCallback(methods="gradcam", exchange=[], boxes=str(file), on_error="raise")
    trainer = fit(second, epochs=1)
    assert "cam/on_target_enrichment/gradcam" in trainer.callback_metrics
    assert second.probe.fingerprint == first.probe.fingerprint


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ('{"format": 2, "size": [24, 24], "images": {}}', "format 2"),
        ("[1, 2]", "no file of boxes"),
        ("{", "no file of boxes"),
        ('{"format": 1, "size": [24, 24], "images": {"0": {"boxes": [[5, 5, 5, 9]]}}}', "is no box"),
        ('{"format": 1, "size": [24, 24], "images": {"0": {"boxes": [[0, 0, null, 9]]}}}', "no file of boxes"),
        ('{"format": 1, "size": [24, 24], "images": {"cat.jpg": {"boxes": []}}}', "'cat.jpg'; its ids are 0, 1"),
    ],
)
def test_what_is_wrong_with_a_file_is_said(content, words, tmp_path):
    file = tmp_path / "boxes.json"
    file.write_text(content)
    with pytest.raises(ValueError, match=words.replace("[", r"\[")):
        ProbeSet(torch.zeros(2, 3, 24, 24), boxes=file)


def test_a_missing_file_is_a_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError):
        ProbeSet(torch.zeros(2, 3, 24, 24), boxes=tmp_path / "none.json")
