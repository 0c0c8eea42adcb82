"""Detection-aware pre-training for MMDetection.

Importing the package has four effects: it raises an error with instructions if a dependency is
missing or too old, registers the classes in MMEngine's checkpoints with torch's safe loader, keeps
mmpretrain importable with transformers 5, and suppresses a repeated warning caused by MMEngine.
"""

import importlib.metadata
import warnings

from dap import _requirements

__version__ = "0.1.0"

_requirements.check()

from dap import _safe_globals  # noqa: E402 - imports packages that have just been checked


def _disable_multimodal_models() -> None:
    """Keep mmpretrain from importing its multimodal models if transformers is too new for them.

    mmpretrain 1.2 imports them, with all other models, if it finds transformers 4.28 or newer.
    With transformers 5 this fails (``TypeError: NoneType takes no arguments``), and no model of
    mmpretrain can be built. DAP does not use them.
    """
    try:
        major = int(importlib.metadata.version("transformers").partition(".")[0])
    except importlib.metadata.PackageNotFoundError:
        return
    if major >= 5:
        dependency = importlib.import_module("mmpretrain.utils.dependency")
        dependency.WITH_MULTIMODAL = False  # type: ignore[attr-defined]


_safe_globals.register()
_disable_multimodal_models()

# MMEngine 0.10.7, the latest release, imports pkg_resources in every process.
warnings.filterwarnings("ignore", "pkg_resources is deprecated", UserWarning)
