"""What people hold in their hands as "the model", ready to be explained.

* `models.py`: the module to explain, its input and its names, of each library's models
* `yolo.py`, `zoo.py`: what ultralytics does with a picture; what torchvision, timm and transformers do
* `inputs.py`: from a picture to a model's input
* `checkpoints.py`: weights from a file; `shards.py`: from those that several processes saved
* `importing.py`: what MODEL on the command line stands for
"""

from cam_engine.loading.checkpoints import load_checkpoint
from cam_engine.loading.importing import import_model
from cam_engine.loading.models import Loaded, example, load_model
from cam_engine.loading.shards import is_sharded_checkpoint
from cam_engine.loading.yolo import Size

__all__ = ["Loaded", "Size", "example", "import_model", "is_sharded_checkpoint", "load_checkpoint", "load_model"]
