"""A training in Lightning on several CPU processes, its model sharded as asked for; what it leaves is written down by each rank.

Run as a script: ``sharded_training.py OUT JSON``, a list of cases, one fit after the other in the same processes.
"""

import copy
import hashlib
import json
import sys
import warnings
from pathlib import Path

import torch
from torch import nn
from torch.utils.data import DataLoader

sys.path.insert(0, str(Path(__file__).parent))
import conftest
import pytorch_lightning as pl
from pytorch_lightning.strategies import ModelParallelStrategy

from cam_callbacks import CAMCallback, ProbeSet
