"""Support for MMEngine's checkpoints in torch's safe loader.

Since torch 2.6, ``torch.load`` restores only classes on a list of safe globals. MMEngine 0.10.7
saves more than tensors: the log as ``HistoryBuffer`` with its methods, numbers and arrays of numpy,
the metainfo of a data set as ``ConfigDict``, and the annealing function of a one-cycle schedule.
``register`` adds exactly these to the list, so that ``resume``, ``load_from`` and ``init_cfg`` work
with the safe loader.
"""

import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
from mmengine.config import ConfigDict
from mmengine.logging import HistoryBuffer
from torch.serialization import add_safe_globals

# Booleans, numbers and text: the types in metrics and in the metainfo of a data set.
_DTYPES = "?bhilqBHILQefdU"
_REBUILD_ARRAY: Any = np.zeros(0).__reduce__()[0]
_REBUILD_SCALAR: Any = np.float64(0).__reduce__()[0]


class OneCycle:
    """Placeholder for MMEngine's ``OneCycleParamScheduler``, whose import takes seconds."""


def method(owner: type, name: str) -> Callable:
    """Restricted replacement for ``getattr``, with which pickle restores a method of a class.

    ``getattr`` itself would make the safe loader unsafe; this function returns only the methods
    that MMEngine saves.

    Args:
        owner: Class of the method.
        name: Name of the method.

    Returns:
        The method.

    Raises:
        pickle.UnpicklingError: If it is no method that MMEngine saves.
    """
    if owner is HistoryBuffer and name in ("min", "max", "mean", "current"):
        return getattr(HistoryBuffer, name)
    if owner is OneCycle and name in ("_annealing_cos", "_annealing_linear"):
        from mmengine.optim.scheduler.param_scheduler import OneCycleParamScheduler

        return getattr(OneCycleParamScheduler, name)
    raise pickle.UnpicklingError(f"no checkpoint of MMEngine holds {name!r} of {owner!r}")


def register() -> None:
    """Add the classes in MMEngine's checkpoints to the safe globals; can be called repeatedly."""
    add_safe_globals(
        [
            HistoryBuffer,
            ConfigDict,
            (OneCycle, "mmengine.optim.scheduler.param_scheduler.OneCycleParamScheduler"),
            (method, "builtins.getattr"),
            np.ndarray,
            np.dtype,
            bytes,  # part of a pickled empty array
            *{type(np.dtype(code)) for code in _DTYPES},
            # numpy 2 renamed its core: files contain the name in the numpy that wrote them
            (_REBUILD_ARRAY, "numpy._core.multiarray._reconstruct"),
            (_REBUILD_ARRAY, "numpy.core.multiarray._reconstruct"),
            (_REBUILD_SCALAR, "numpy._core.multiarray.scalar"),
            (_REBUILD_SCALAR, "numpy.core.multiarray.scalar"),
        ]
    )
