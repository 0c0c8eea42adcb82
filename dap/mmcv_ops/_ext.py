"""``mmcv._ext`` without a compiler: mmcv's operators by torch and torchvision.

The functions have the names, arguments and in-place outputs of the compiled module.
Any other operator name gives a function that raises an error with the cure.
"""

from ._ext_torch import *  # noqa: F403
from ._ext_torch.missing import missing_operator as __getattr__  # noqa: F401
