"""Detection-aware pre-training for MMDetection.

Importing the package does three things and nothing else: it stops with one sentence when a
package that it needs is missing or unfit, it makes MMEngine's checkpoints loadable under
torch's safe loader, and it keeps mmpretrain importable beside transformers 5.
"""

from dap import _requirements

__version__ = "0.1.0"

_requirements.check()

from dap import _multimodal, _safe_globals  # noqa: E402 - imports what has just been checked

_safe_globals.register()
_multimodal.leave_out()
