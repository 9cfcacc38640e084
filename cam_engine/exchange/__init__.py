"""Exchange tests: take a part of one image from another, and see whose prediction comes out.

Maps say where a model looks; these tests say whether it decides there. ``follows`` is the one entry; the mixtures are pure
functions on batches (``cam_engine.exchange.mixtures``).
"""

from cam_engine.exchange.follows import Followed, ObjectShare, count_followed, follows, object_share
from cam_engine.exchange.mixing import Mixer
from cam_engine.exchange.pairs import draw_pairs
from cam_engine.exchange.parts import Part, available_parts, default_parts, get_part, register_part
from cam_engine.exchange.predicted import predicted_classes, predicted_inside

__all__ = [
    "Followed",
    "Mixer",
    "ObjectShare",
    "Part",
    "available_parts",
    "count_followed",
    "default_parts",
    "draw_pairs",
    "follows",
    "get_part",
    "object_share",
    "predicted_classes",
    "predicted_inside",
    "register_part",
]
