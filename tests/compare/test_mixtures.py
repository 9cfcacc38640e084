"""The mixtures in the page are those that the model was asked about."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from cam_callbacks.compare import load_run, page_data
from cam_callbacks.compare.mixtures import mixture, mixtures
from cam_engine.exchange import Mixer


@pytest.mark.parametrize("part", ["background", "nuisance", "frame"])
def test_a_mixture_is_the_engines(part, probe_arrays):
    pairs = np.array([[0, 1], [3, 2], [5, 0]])
    pictures = torch.from_numpy(probe_arrays["pictures"]).permute(0, 3, 1, 2).double()
    regions = {"masks": probe_arrays["masks"], "nuisance": probe_arrays["nuisance"]}
    theirs = Mixer(pictures, pairs, [part], **regions)(part, [0, 1, 2]).permute(0, 2, 3, 1).numpy()
    for (donor, receiver), expected in zip(pairs.tolist(), theirs, strict=True):
        assert (mixture(probe_arrays, part, donor, receiver) == expected).all()


@pytest.fixture
def exchanged(write_run):
    """The background decided in 3 of 4 pairs, the frame in none."""
    run = load_run(write_run("shortcut", "nuisance", epochs=2))
    last = replace(
        run.records[-1],
        predictions=np.array([0, 1, 2, 0, 1, 2]),
        exchange_pairs=np.array([[0, 1], [1, 2], [2, 0], [3, 4], [4, 1]]),
        exchanged={"background": np.array([0, 1, 0, 0, -1]), "frame": np.array([1, 2, 0, 1, -1])},
    )
    return replace(run, records=[run.records[0], last])


def test_the_part_that_decided_most_often_is_shown(exchanged):
    shown = mixtures(exchanged, range(6))
    assert (shown["part"], shown["share"], shown["n"]) == ("background", 0.75, 4)
    assert [(pair["donor"], pair["receiver"], pair["predicted"]) for pair in shown["pairs"]] == [
        (0, 1, 0),
        (1, 2, 1),
        (3, 4, 0),
    ]
    assert page_data([exchanged])["runs"][0]["mixtures"] == shown


def test_pairs_of_images_that_are_not_in_the_page_are_left_out(exchanged):
    (pair,) = mixtures(exchanged, [1, 2, 5])["pairs"]
    assert (pair["donor"], pair["receiver"]) == (0, 1)


def test_where_nothing_was_exchanged_or_pixels_are_withheld_there_are_none(exchanged):
    bare = replace(exchanged.records[-1], exchange_pairs=None, exchanged={})
    assert mixtures(replace(exchanged, records=[bare]), range(6)) is None
    assert mixtures(replace(exchanged, manifest=exchanged.manifest | {"store_images": False}), range(6)) is None
    assert mixtures(replace(exchanged, probe={}), range(6)) is None
