"""Find the tensors of a checkpoint that depend on its categories, from several sources."""

import logging
from collections.abc import Collection, Mapping
from typing import Any

from mmengine.config import Config
from mmengine.logging import print_log
from torch import nn

from dap.checkpoint import LEFT_OUT, NORMALIZATION

from .category_dependent import state_shapes
from .model_configs import (
    UNBUILDABLE,
    ModelConfig,
    dependent_by_config,
    parse_model_config,
    read_model_config,
)
from .normalization import Normalization, normalization_of_config


class CheckpointNames:
    """Information from configs and ``meta`` about the tensors of a checkpoint.

    Args:
        checkpoint: Source of the weights, for errors and the log.
        meta: The checkpoint's ``meta``.
        model_cfg: Config of its detector, from the user.
        prefix: Prefix of the names to load, which is removed.
    """

    def __init__(
        self,
        checkpoint: str,
        meta: Mapping[str, Any],
        model_cfg: str | Config | Mapping[str, Any] | None,
        prefix: str,
    ) -> None:
        self.checkpoint, self.meta, self.prefix = checkpoint, meta, prefix
        text = meta.get("cfg")
        self.stored_config = parse_model_config(text) if isinstance(text, str) else None
        self.user_config = None if model_cfg is None else read_model_config(model_cfg)
        self.failures: list[str] = []
        if self.stored_config is None and model_cfg is None:
            self.failures.append(f"{checkpoint} has no config")

    @property
    def normalization(self) -> Normalization | None:
        """Normalisation of the images of the checkpoint's detector; None if unknown."""
        config = self.user_config or self.stored_config
        if config is not None:
            return normalization_of_config(config.model)
        note = self.meta.get(NORMALIZATION)
        return None if note is None else Normalization.from_note(note)

    def category_dependent(
        self, module: nn.Module, weights: Collection[str], target: ModelConfig | None
    ) -> frozenset[str] | None:
        """Find the category-dependent names.

        Sources in order of precedence: the user's config, the note of `extract_detector`, the
        checkpoint's config, and the config of the detector to initialise.

        Args:
            module: The detector to initialise.
            weights: Names in the checkpoint, without the prefix.
            target: Config of ``module``, if a Runner has it.

        Returns:
            Names as in the detector's ``state_dict``, or None if no source has them.

        Raises:
            ValueError: If the user's config cannot be built or belongs to another detector, or if
                none of the names has the prefix.
        """
        if self.user_config is not None:
            dependent = dependent_by_config(self.user_config, "model_cfg")
            names = self._below_prefix(dependent, "model_cfg")
            if names and names.isdisjoint([*weights, *module.state_dict()]):
                raise ValueError(
                    f"model_cfg is of another detector than {self.checkpoint}: its {min(names)!r} "
                    "is neither in the detector nor in the checkpoint, which has "
                    f"{', '.join([*weights][:3])} … Pass the config that it was trained with."
                )
            return names
        if LEFT_OUT in self.meta:
            return self._below_prefix(self.meta[LEFT_OUT], "the note of extract_detector in it")
        if self.stored_config is not None:
            stored = self._by_config(self.stored_config, self.checkpoint)
            if stored is not None:
                return self._below_prefix(stored, "its config")
        if target is None:
            self.failures.append("no Runner tells the detector's own")
            return None
        expected = {name: tuple(value.shape) for name, value in module.state_dict().items()}
        try:
            same = state_shapes(*target) == expected
        except UNBUILDABLE:
            same = True  # `_by_config` reports the error
        if not same:
            self.failures.append("the Runner's config is of another detector than is initialised")
            return None
        return self._by_config(target, "the Runner's config")

    def _by_config(self, config: ModelConfig, source: str) -> frozenset[str] | None:
        """Find the names from a config, or log why that is not possible."""
        try:
            return dependent_by_config(config, source)
        except ValueError as error:
            self.failures.append(str(error).rstrip("."))
            print_log(
                f"PretrainedDetector: {error} Pass model_cfg=… if this detector's layers differ.",
                logger="current",
                level=logging.WARNING,
            )
            return None

    def _below_prefix(self, names: Collection[str], source: str) -> frozenset[str]:
        inside = [name for name in names if name.startswith(self.prefix)]
        if names and not inside:
            raise ValueError(
                f"{self.checkpoint}: prefix={self.prefix!r}, but none of the {len(names)} names "
                f"that depend on the categories by {source} begins so (such as {min(names)!r}), so "
                "that class layers would be loaded. Pass the model_cfg of the whole checkpoint, "
                "whose names have the prefix, or save the tensors under names without the prefix "
                "and pass that file."
            )
        return frozenset(name.removeprefix(self.prefix) for name in inside)

    def nothing_known(self) -> str:
        """Error message for the case that no source has the names."""
        return (
            f"Nothing tells which layers depend on the categories: {'; '.join(self.failures)}; and "
            "no shape shows another class count. Pass init_cfg=dict(type='dap.PretrainedDetector', "
            "checkpoint=…, model_cfg=CONFIG) with a config of the checkpoint's detector, or take "
            "those layers out once: "
            "python tools/extract_detector.py CHECKPOINT OUT --config CONFIG."
        )
