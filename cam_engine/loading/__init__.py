"""What people hold in their hands as "the model", ready to be explained.

* `models.py`: the module to explain, its input and its names, of each library's models
* `inputs.py`: from a picture to a model's input
* `checkpoints.py`: weights from a file
* `importing.py`: ``package.module:name``
"""

from cam_engine.loading.checkpoints import load_checkpoint
from cam_engine.loading.importing import import_model
from cam_engine.loading.inputs import normalising
from cam_engine.loading.models import Loaded, example, load_model

__all__ = ["Loaded", "example", "import_model", "load_checkpoint", "load_model", "normalising"]
