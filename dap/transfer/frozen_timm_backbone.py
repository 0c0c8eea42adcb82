"""mmpretrain's wrapper of timm's backbones, of which detectors can keep parts as they are."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from mmpretrain.models.backbones import TIMMBackbone
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from dap.registry import MODELS


@MODELS.register_module()
class FrozenTIMMBackbone(TIMMBackbone):
    """A timm backbone with frozen layers and fixed BatchNorm.

    In pre-training and fine-tuning the paper fixes BatchNorm and freezes the first layers (section
    4.1). mmdet's ResNet has ``frozen_stages`` and ``norm_eval`` for it, mmpretrain's
    ``TIMMBackbone`` nothing. Names of weights are those of ``TIMMBackbone``.

    Args:
        *args: Of ``TIMMBackbone``.
        frozen: Modules that are not trained, by their names in the backbone, such as
            ``'timm_model.conv_stem'``; ``'timm_model'`` for all. They stay in evaluation mode.
        fixed_batch_norm: Whether all BatchNorm keeps its statistics, its scale and its shift.
        **kwargs: Of ``TIMMBackbone``.

    Raises:
        ValueError: If a name of ``frozen`` is no module.
    """

    def __init__(
        self,
        *args: Any,
        frozen: Sequence[str] = (),
        fixed_batch_norm: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        names = [name for name, _ in self.named_modules() if name]
        for name in frozen:
            if name not in names:
                raise ValueError(
                    f"frozen: no module {name!r} in the backbone; expected names such as "
                    f"{', '.join(names[:4])}"
                )
        self.frozen, self.fixed_batch_norm = tuple(frozen), fixed_batch_norm
        for module in self._kept():
            module.requires_grad_(False)

    def train(self, mode: bool = True) -> FrozenTIMMBackbone:
        """Set the mode of all that is trained; the rest stays in evaluation mode."""
        super().train(mode)
        for module in self._kept():
            module.eval()
        return self

    def _kept(self) -> Iterator[nn.Module]:
        yield from (self.get_submodule(name) for name in self.frozen)
        if self.fixed_batch_norm:
            yield from (module for module in self.modules() if isinstance(module, _BatchNorm))
