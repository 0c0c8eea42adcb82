"""``mmcv._ext`` without a compiler: mmcv's operators, implemented with torch and torchvision.

The functions have the names, arguments and in-place outputs of the compiled module.
Other operators of mmcv are functions that raise an error with instructions.
"""

from ._ext_torch import *  # noqa: F403
from ._ext_torch.missing import missing_operator as __getattr__  # noqa: F401
