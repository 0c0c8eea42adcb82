"""Registry nodes of the scope ``dap``.

For ``type='dap.X'`` in a config, MMEngine imports this module and then the locations below, so
that configs need no ``custom_imports``. Keep it free of heavy imports: MMEngine ignores an
ImportError raised in this module.
"""

from mmengine.registry import DATASETS as MMENGINE_DATASETS
from mmengine.registry import HOOKS as MMENGINE_HOOKS
from mmengine.registry import LOOPS as MMENGINE_LOOPS
from mmengine.registry import METRICS as MMENGINE_METRICS
from mmengine.registry import MODELS as MMENGINE_MODELS
from mmengine.registry import VISBACKENDS as MMENGINE_VISBACKENDS
from mmengine.registry import WEIGHT_INITIALIZERS as MMENGINE_WEIGHT_INITIALIZERS
from mmengine.registry import Registry

DATASETS = Registry("dataset", parent=MMENGINE_DATASETS, scope="dap", locations=["dap.datasets"])
HOOKS = Registry("hook", parent=MMENGINE_HOOKS, scope="dap", locations=["dap.hooks"])
LOOPS = Registry("loop", parent=MMENGINE_LOOPS, scope="dap", locations=["dap.metrics"])
METRICS = Registry("metric", parent=MMENGINE_METRICS, scope="dap", locations=["dap.metrics"])
MODELS = Registry(
    "model",
    parent=MMENGINE_MODELS,
    scope="dap",
    locations=["dap.transfer.frozen_timm_backbone", "dap.classifiers.torchvision_classifier"],
)
VISBACKENDS = Registry(
    "vis_backend",
    parent=MMENGINE_VISBACKENDS,
    scope="dap",
    locations=["dap.visualization.vis_backends"],
)
WEIGHT_INITIALIZERS = Registry(
    "weight initializer",
    parent=MMENGINE_WEIGHT_INITIALIZERS,
    scope="dap",
    locations=["dap.transfer.pretrained_detector"],
)
