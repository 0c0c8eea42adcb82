"""Detection-aware pre-training for MMDetection.

Importing the package does four things and nothing else: it stops with one sentence when a
package that it needs is missing or unfit, it makes MMEngine's checkpoints loadable under torch's
safe loader, it keeps mmpretrain importable beside transformers 5, and it hides one warning that
MMEngine causes again and again.
"""

import warnings

from dap import _requirements

__version__ = "0.1.0"

_requirements.check()

from dap import _multimodal, _safe_globals  # noqa: E402 - imports what has just been checked

_safe_globals.register()
_multimodal.leave_out()

# MMEngine 0.10.7, its last release, reads pkg_resources in every process and for every backbone.
warnings.filterwarnings("ignore", "pkg_resources is deprecated", UserWarning)
