"""mmpretrain beside transformers 5."""

import importlib
from importlib.metadata import PackageNotFoundError, version

BROKEN_FROM = 5  # of transformers, for the multimodal models of mmpretrain 1.2


def leave_out() -> None:
    """Let mmpretrain leave out its multimodal models where transformers is too new for them.

    mmpretrain 1.2 imports them, with all other models, if it finds transformers 4.28 or newer.
    From transformers 5 on this fails (``TypeError: NoneType takes no arguments``), so that no model
    of mmpretrain could be built. Nothing here uses them.
    """
    try:
        major = int(version("transformers").partition(".")[0])
    except PackageNotFoundError:
        return
    if major >= BROKEN_FROM:
        dependency = importlib.import_module("mmpretrain.utils.dependency")
        dependency.WITH_MULTIMODAL = False  # type: ignore[attr-defined]
