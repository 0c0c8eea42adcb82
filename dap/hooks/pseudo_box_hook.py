"""Write pseudo boxes at the end of a classifier's training."""

from __future__ import annotations

import os
from typing import Any

from mmengine.hooks import EMAHook, Hook
from mmengine.logging import print_log
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner
from torch import nn

from dap.images.categories import coco_categories
from dap.images.labelled_images import LabelledImages
from dap.pseudo_boxes import (
    CamClassifier,
    Execution,
    PseudoBoxSettings,
    generate_pseudo_boxes,
    settings_from_config,
)
from dap.pseudo_boxes.engine import Watcher
from dap.pseudo_boxes.from_config import build_training_set, require_normalization
from dap.pseudo_boxes.settings import with_changes
from dap.ranks import all_ranks
from dap.registry import HOOKS
from dap.store.reader import ANNOTATIONS, MANIFEST, SUMMARY


@HOOKS.register_module()
class PseudoBoxHook(Hook):
    """Write pseudo boxes when the training of an mmpretrain classifier ends, and optionally a test.

    In a config: ``custom_hooks = [dict(type='dap.PseudoBoxHook')]``. The hook does the same as
    ``tools/generate_pseudo_boxes.py``, with the images of the config's ``train_dataloader`` and the
    current weights of the runner. With ``pseudo_box_pictures = 16`` in the config, 16 images with
    map and boxes are sent to the runner's visualizer.

    Args:
        out_dir: Folder to write. Defaults to ``pseudo_boxes`` in the work directory.
        num_workers: Processes that read images, per rank. Defaults to a number that fits the cores.
        coco: Whether to write ``annotations.json``; Step 3 does not need it.
        keep_going: Whether to go on if the first boxes are useless.
        normalized: Whether to reject a classifier that does not normalise its images.
        after_test: Whether a test run writes boxes, too. Off by default, because boxes take far
            longer than a test.
        **settings: Fields of :class:`dap.pseudo_boxes.PseudoBoxSettings`. They default to those of
            the config's ``pseudo_boxes``. If ``rule`` interprets thresholds differently from the
            config's rule, the thresholds default to those of ``rule``.

    Raises:
        ValueError: If a setting is unknown or out of range.
    """

    priority = "VERY_LOW"

    def __init__(
        self,
        out_dir: str | None = None,
        num_workers: int | None = None,
        coco: bool = True,
        keep_going: bool = False,
        normalized: bool = True,
        after_test: bool = False,
        **settings: Any,
    ) -> None:
        unknown = settings.keys() - PseudoBoxSettings.__dataclass_fields__.keys()
        if unknown:
            raise ValueError(
                f"PseudoBoxHook: unknown settings {sorted(unknown)}; expected out_dir, "
                "num_workers, coco, keep_going, normalized, after_test or "
                f"{sorted(PseudoBoxSettings.__dataclass_fields__)}"
            )
        PseudoBoxSettings(**settings)
        self.out_dir, self.normalized, self.settings = out_dir, normalized, settings
        self.boxes_after_test = after_test
        self.execution = Execution(num_workers, keep_going=keep_going, coco=coco)

    def before_train(self, runner: Runner) -> None:
        """Check, before the training, everything that would fail after it.

        Raises:
            ValueError: If a new training would overwrite boxes of an earlier one, this classifier
                gives no maps, or the data set does not fit the classifier.
        """
        for name in (MANIFEST, ANNOTATIONS, SUMMARY):
            path = os.path.join(self._folder(runner), name)
            if runner.iter == 0 and os.path.exists(path):
                raise ValueError(
                    f"{path} is from an earlier training and is not overwritten. Set another "
                    "out_dir for PseudoBoxHook or another work_dir, or move the folder away"
                )
        self._check(runner)

    def before_test(self, runner: Runner) -> None:
        """If boxes are asked for, check everything that would fail after the test.

        Raises:
            ValueError: See :meth:`before_train`.
        """
        if self.boxes_after_test:
            self._check(runner)

    def after_train(self, runner: Runner) -> None:
        """Write boxes with the trained classifier."""
        self._generate(runner)

    def after_test(self, runner: Runner) -> None:
        """Write boxes with the tested classifier, if asked for."""
        if self.boxes_after_test:
            self._generate(runner)

    def _check(self, runner: Runner) -> None:
        _watcher(runner, settings_from_config(runner.cfg))
        model = _trained_model(runner)
        if self.normalized:
            require_normalization(model, "PseudoBoxHook")
        method = self.settings.get("map_method", settings_from_config(runner.cfg).map_method)
        count = CamClassifier(model, method).num_classes
        with all_ranks() as ranks:  # one process lists the images
            ranks.on_first_rank(lambda: _check_categories(runner, count))

    def _generate(self, runner: Runner) -> None:
        model = _trained_model(runner)
        config = runner.cfg.copy()
        config["pseudo_boxes"] = with_changes(config.get("pseudo_boxes", {}), self.settings)
        out_dir = self._folder(runner)
        settings = settings_from_config(config)
        print_log(f"writing pseudo boxes to {out_dir}", logger="current")
        generate_pseudo_boxes(
            model,
            build_training_set(config),
            out_dir,
            settings,
            checkpoint=f"{runner.work_dir} after {runner.iter} iterations",
            execution=self.execution,
            watcher=_watcher(runner, settings),
        )

    def _folder(self, runner: Runner) -> str:
        return self.out_dir or os.path.join(runner.work_dir, "pseudo_boxes")


def _check_categories(runner: Runner, num_classes: int) -> None:
    coco_categories(LabelledImages(build_training_set(runner.cfg)), num_classes)


def _watcher(runner: Runner, settings: PseudoBoxSettings) -> Watcher | None:
    """Pictures for the runner's visualizer, if the config asks for some."""
    from dap.visualization.box_pictures import BoxPictures, picture_count  # slow to import

    count = picture_count(runner.cfg)
    return BoxPictures(runner.visualizer, settings, count) if count else None


def _trained_model(runner: Runner) -> nn.Module:
    """The model as checkpoints have it: the averaged one if the runner has an ``EMAHook``."""
    for hook in runner.hooks:
        if isinstance(hook, EMAHook) and hasattr(hook, "ema_model"):
            return hook.ema_model.module
    return runner.model.module if is_model_wrapper(runner.model) else runner.model
