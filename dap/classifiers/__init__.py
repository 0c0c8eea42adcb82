"""Step 2, the classifier: find the feature map and the layers that its logits are computed from."""

from .attention import attention_maps, count_blocks
from .gradient import Target, find_target, gradient_maps
from .layout import Layout
from .network import LogitNetwork, Tap, observe, shared_copy
from .readout import Readout, find_readout, nearly_equal

__all__ = [
    "Layout",
    "LogitNetwork",
    "Readout",
    "Tap",
    "Target",
    "attention_maps",
    "count_blocks",
    "find_readout",
    "find_target",
    "gradient_maps",
    "nearly_equal",
    "observe",
    "shared_copy",
]
