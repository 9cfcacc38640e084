"""Detectors: which raw outputs a detection came from, targets for them, and maps of all, each class or each box."""

from cam_engine.detect.explain import Explained, Part, explain_detections
from cam_engine.detect.families import FAMILIES, family_of, register_family
from cam_engine.detect.family import Family
from cam_engine.detect.raw import Detections, Raw
from cam_engine.detect.targets import BoxTarget

__all__ = [
    "FAMILIES",
    "BoxTarget",
    "Detections",
    "Explained",
    "Family",
    "Part",
    "Raw",
    "explain_detections",
    "family_of",
    "register_family",
]
