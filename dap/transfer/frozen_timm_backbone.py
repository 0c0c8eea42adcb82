"""mmpretrain's wrapper of timm's backbones, with layers that can be frozen."""

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
    4.1). mmdet's ResNet has ``frozen_stages`` and ``norm_eval`` for this; mmpretrain's
    ``TIMMBackbone`` has no such options. Names of weights are those of ``TIMMBackbone``.

    Args:
        *args: Arguments of ``TIMMBackbone``.
        frozen: Names of modules in the backbone that are not trained, such as
            ``'timm_model.conv_stem'``; ``'timm_model'`` for all. They remain in evaluation mode.
        fixed_batch_norm: Whether statistics, scale and shift of all BatchNorm layers are fixed.
        **kwargs: Arguments of ``TIMMBackbone``.

    Raises:
        ValueError: If ``frozen`` names a module that does not exist.
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
        for module in self._frozen_modules():
            module.requires_grad_(False)

    def train(self, mode: bool = True) -> FrozenTIMMBackbone:
        """Set the mode of trained modules; frozen ones remain in evaluation mode."""
        super().train(mode)
        for module in self._frozen_modules():
            module.eval()
        return self

    def _frozen_modules(self) -> Iterator[nn.Module]:
        yield from (self.get_submodule(name) for name in self.frozen)
        if self.fixed_batch_norm:
            yield from (module for module in self.modules() if isinstance(module, _BatchNorm))
