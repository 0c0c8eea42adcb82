"""MMEngine's checkpoints under torch's safe loader.

Since torch 2.6 ``torch.load`` rebuilds only what is on a list. MMEngine 0.10.7 saves more than
tensors: the log as ``HistoryBuffer`` with its methods, numbers and arrays of numpy, a data set's
metainfo as the config nests it, and the function by which a one-cycle schedule anneals.
``register`` puts exactly these on the list, so that ``resume``, ``load_from`` and ``init_cfg`` work
and the loader stays safe.
"""

import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
from mmengine.config import ConfigDict
from mmengine.logging import HistoryBuffer
from torch.serialization import add_safe_globals

# Booleans, numbers and text: what a metric or a data set's metainfo may hold.
_DTYPES = "?bhilqBHILQefdU"
_REBUILD_ARRAY: Any = np.zeros(0).__reduce__()[0]
_REBUILD_SCALAR: Any = np.float64(0).__reduce__()[0]


class OneCycle:
    """Stands for MMEngine's ``OneCycleParamScheduler``, whose import takes seconds."""


def method(owner: type, name: str) -> Callable:
    """Stand in for ``getattr``, by which pickle fetches a method of a class.

    ``getattr`` itself would open the safe loader to everything; this hands out what MMEngine
    saves and no more.

    Args:
        owner: Class that the checkpoint takes a method of.
        name: Name of the method.

    Returns:
        The method.

    Raises:
        pickle.UnpicklingError: If MMEngine does not save this method.
    """
    if owner is HistoryBuffer and name in ("min", "max", "mean", "current"):
        return getattr(HistoryBuffer, name)
    if owner is OneCycle and name in ("_annealing_cos", "_annealing_linear"):
        from mmengine.optim.scheduler.param_scheduler import OneCycleParamScheduler

        return getattr(OneCycleParamScheduler, name)
    raise pickle.UnpicklingError(f"no checkpoint of MMEngine holds {name!r} of {owner!r}")


def register() -> None:
    """Tell torch's safe loader what MMEngine's checkpoints hold; a second call adds nothing."""
    add_safe_globals(
        [
            HistoryBuffer,
            ConfigDict,
            (OneCycle, "mmengine.optim.scheduler.param_scheduler.OneCycleParamScheduler"),
            (method, "builtins.getattr"),
            np.ndarray,
            np.dtype,
            bytes,  # by which an empty array is pickled
            *{type(np.dtype(code)) for code in _DTYPES},
            # numpy 2 moved its core: a file has the name of the numpy that wrote it
            (_REBUILD_ARRAY, "numpy._core.multiarray._reconstruct"),
            (_REBUILD_ARRAY, "numpy.core.multiarray._reconstruct"),
            (_REBUILD_SCALAR, "numpy._core.multiarray.scalar"),
            (_REBUILD_SCALAR, "numpy.core.multiarray.scalar"),
        ]
    )
