"""Plan the commands that fill the rows of a table, each after those that it needs."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from mmengine.config import Config

from dap.jobs.jobs import Jobs, tool_command
from dap.jobs.launcher import Launcher
from dap.pseudo_boxes import PseudoBoxSettings, settings_from_config

from .catalogue import Row, Run
from .config_tree import ConfigTree, work_dir_paths
from .data import below_root, data_files, full_path, of_seed, preparation, unlabelled
from .paper_runs import CLASSIFIERS, PREDICTIONS, PRETRAININGS, SELECTIONS
from .schedule import (
    added_options,
    amp_options,
    base_batch_size,
    batch_options,
    iteration_options,
    k_shot_options,
    last_checkpoint,
)


@dataclass
class Plan:
    """The jobs of some rows of a table, in the order in which they can run.

    Attributes:
        configs: The configs.
        launcher: How commands are started.
        root: The work directory, which replaces ``work_dirs/`` in the configs. It has no blanks or
            commas, which MMEngine's options do not support.
        batch_per_gpu: See :func:`batch_options`.
        iterations: Iterations of k-shot fine-tunings; None for those of the configs.
        amp: Whether trainings use mixed precision.
        training_options: Keys of the configs → values, for every training.
        jobs: Name → job; filled by :meth:`add`.

    Raises:
        ValueError: If a value is out of range.
    """

    configs: ConfigTree
    launcher: Launcher = field(default_factory=Launcher)
    root: str = "work_dirs"
    batch_per_gpu: int | None = None
    iterations: int | None = None
    amp: bool = False
    training_options: Mapping[str, object] = field(default_factory=dict)
    jobs: Jobs = field(default_factory=Jobs)

    def __post_init__(self) -> None:
        self.root = str(Path(self.root))
        if re.search(r"[\s,]", self.root):
            raise ValueError(f"work directory: expected no blanks and commas, found {self.root!r}")
        for name in ("batch_per_gpu", "iterations"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name}: expected 1 or more, found {value}")

    def add(self, rows: Iterable[Row], seeds: Iterable[int | None] = (None,)) -> None:
        """Plan the jobs that fill the cells of the rows, once per seed if seeds matter.

        Args:
            rows: Rows of one table or several.
            seeds: Seeds of fine-tunings and of draws of k-shot sets; None for those of the configs.
        """
        for row in rows:
            for cell in row.cells:
                for seed in seeds:
                    self.result(cell.run, seed)

    def result(self, run: Run, seed: int | None) -> str:
        """Plan a run and its test; return the folder or file of its figures."""
        if run.config.startswith("boxes_"):
            return str(Path(self._boxes(run)).parent)
        seed = seed if self._is_finetuning(run.config) else None
        if run.checkpoint:
            return self._tested(run, self._path(run.checkpoint, seed), seed)
        checkpoint = self._trained(run, seed)
        if not self._is_finetuning(run.config):
            return checkpoint
        return self._tested(run, checkpoint, seed)

    def _path(self, path: str, seed: int | None) -> str:
        """Plan the jobs that make a file named by a config; return its path."""
        folder = re.fullmatch(r"work_dirs/([^/]+)/[^/]+", path)
        if not folder:
            return path
        name = folder[1]
        if name in PREDICTIONS:
            return self._pseudo_labels(name, seed)
        if name.startswith("boxes_"):
            return self._boxes(Run(name))
        run = PRETRAININGS.get(name) or Run(name)
        return self._trained(run, seed) if run.config in self.configs else path

    def _annotations(self, config: Config, key: str, seed: int | None) -> str:
        """Plan the jobs that make an annotation file; return the value of its key."""
        dataset: Any = config
        for part in key.split(".")[:-1]:
            dataset = dataset[int(part)] if isinstance(dataset, list | tuple) else dataset[part]
        path = of_seed(full_path(dataset), seed)
        tool = preparation(path, config, dataset)
        if tool is not None:
            self.jobs.add(tool.name, "files", tool.command, path, inputs=tool.inputs)
        return below_root(self._path(path, seed), dataset)

    def _boxes(self, run: Run) -> str:
        """Plan Step 2, or a selection if its source is planned already or the run has no config."""
        out = f"{self.root}/{run.name}"
        if run.name in SELECTIONS:
            source, fields = SELECTIONS[run.name]
            if run.name not in self.configs or source.name in self.jobs:
                return self._selected(run.name, out, source, fields)
        config = self.configs.load(run.config, run.options)
        classifier = self._path(CLASSIFIERS[run.config], None)
        command = self.launcher.boxes(self.configs.path(run.config), classifier, out, run.options)
        manifest, settings = f"{out}/manifest.json", settings_from_config(config)
        inputs = data_files(config, ("train_dataloader",))
        if classifier.startswith(f"{self.root}/"):
            inputs = (classifier, *inputs)
        fields = {"settings": settings, "config": config, "inputs": inputs}
        return self.jobs.add(
            run.name, "boxes", command, manifest, gpus=self.launcher.gpus, **fields
        )

    def _selected(self, name: str, out: str, source: Run, fields: Mapping[str, Any]) -> str:
        candidates = self._boxes(source)
        source_settings = self.jobs[source.name].settings
        assert source_settings is not None
        changes = {"nms_iou": PseudoBoxSettings().nms_iou, **fields}
        settings = replace(source_settings, **changes)
        nms = settings.nms_iou
        arguments = ["--no-nms"] if nms is None else ["--nms-iou", nms]
        if "thresholds" in fields:
            arguments = ["--thresholds", *settings.thresholds, *arguments]
        command = tool_command("select_boxes", Path(candidates).parent, "--out", out, *arguments)
        manifest, inputs = f"{out}/manifest.json", (candidates,)
        return self.jobs.add(name, "boxes", command, manifest, settings=settings, inputs=inputs)

    def _trained(self, run: Run, seed: int | None) -> str:
        """Plan a training and the jobs that it needs; return its last checkpoint."""
        seed = seed if self._is_finetuning(run.config) else None
        options, read = self._options(run), []
        plain = self.configs.load(run.config, options)
        for key, path in work_dir_paths(plain).items():
            if key.endswith("ann_file"):
                actual = self._annotations(plain, key, seed)
            else:
                actual = self._path(path, seed)
                read.append(actual)
            if actual != path:
                options[key] = actual
        # More GPUs than the paper's batch has images would only change the batch.
        launcher = self.launcher.at_most(base_batch_size(plain) or self.launcher.gpus)
        options |= batch_options(plain, launcher.gpus, self.batch_per_gpu)
        name = run.name
        if self.iterations and run.shots:
            options |= iteration_options(plain, self.iterations)
            name += f"_{self.iterations}it"
        if seed is not None:
            options["randomness.seed"] = seed
            name += f"_seed{seed}"
        options |= amp_options(plain) if self.amp else {}
        options = added_options(plain, options, self.training_options)
        config, file = self.configs.load(run.config, options), self.configs.path(run.config)
        package, out = _package(config), f"{self.root}/{name}"
        command = launcher.train(package, file, out, options)
        compared = (*data_files(config, ("train_dataloader",)), *read)
        checkpoint = self.jobs.add(
            name,
            "train",
            command,
            f"{out}/{last_checkpoint(config)}",
            config=config,
            batch=launcher.gpus * config.train_dataloader.batch_size,
            gpus=launcher.gpus,
            inputs=tuple(dict.fromkeys((*compared, *data_files(config, ("val_dataloader",))))),
            compared=compared,
        )
        if self.configs.folder(run.config) == "pretrain":
            self._extracted(name, checkpoint)
        return checkpoint

    def _extracted(self, name: str, checkpoint: str) -> None:
        """Plan the extraction of the weights of a pre-trained detector, to publish."""
        out = f"{self.root}/{name}/extracted"
        command = tool_command("extract_detector", checkpoint, f"{out}/")
        self.jobs.add(f"{name}/extracted", "extract", command, f"{out}/*.pth", inputs=(checkpoint,))

    def _tested(self, run: Run, checkpoint: str, seed: int | None) -> str:
        """Plan the test of a checkpoint; return the folder of its figures."""
        trained = Path(checkpoint).parent.name
        name = f"{self._seeded(run.name, seed) if run.checkpoint else trained}/test"
        out = f"{self.root}/{name}"
        # The options of a trained run affect only its training. Those of a k-shot run are passed
        # anyway, so that the config that MMEngine dumps has the images per class and the seed.
        options = {
            key: of_seed(value, seed) if isinstance(value, str) else value
            for key, value in (self._options(run) if run.checkpoint or run.shots else {}).items()
        }
        config = self.configs.load(run.config, options)
        if _is_coco(config):  # for figures in full precision
            options["test_evaluator.outfile_prefix"] = f"{out}/predictions"
            config = self.configs.load(run.config, options)
        path = self.configs.path(run.config)
        command = self.launcher.test(_package(config), path, checkpoint, out, options)
        inputs = (checkpoint, *data_files(config, ("test_dataloader",)))
        self.jobs.add(
            name,
            "test",
            command,
            f"{out}/*/*.json",
            config=config,
            inputs=inputs,
            gpus=self.launcher.gpus,
        )
        return out

    def _pseudo_labels(self, name: str, seed: int | None) -> str:
        """Plan the labels of Table 9: list of images, predictions, choice of labels."""
        run = PREDICTIONS[name]
        dataset = self.configs.load(run.config).test_dataloader.dataset
        images = self._unlabelled(dataset)
        checkpoint = self._path(run.checkpoint, seed)
        out = f"{self.root}/{self._seeded(run.name, seed)}"
        options = {
            "test_dataloader.dataset.ann_file": below_root(images, dataset),
            "test_evaluator.ann_file": images,
            "test_evaluator.outfile_prefix": f"{out}/predictions",
        }
        config = self.configs.load(run.config, options)
        package, path = _package(config), self.configs.path(run.config)
        command = self.launcher.test(package, path, checkpoint, out, options, tta=True)
        config = _with_tta(config)
        predictions = f"{out}/predictions.bbox.json"
        inputs = (images, checkpoint)
        fields = {"config": config, "inputs": inputs, "gpus": self.launcher.gpus}
        self.jobs.add(Path(out).name, "predict", command, predictions, **fields)
        labels = f"{self.root}/{self._seeded(name, seed)}/annotations.json"
        command = tool_command("pseudo_labels", images, predictions, "--out", labels)
        inputs = (images, predictions)
        return self.jobs.add(Path(labels).parent.name, "files", command, labels, inputs=inputs)

    def _unlabelled(self, dataset: Mapping[str, Any]) -> str:
        """Plan the list of images of Table 9, unless the config names another one."""
        path = full_path(dataset)
        if not path.startswith("work_dirs/"):
            return path
        path = path.replace("work_dirs", self.root, 1)
        tool = unlabelled(path, dataset)
        return self.jobs.add(tool.name, "files", tool.command, path, inputs=tool.inputs)

    def _options(self, run: Run) -> dict[str, object]:
        """Options of a run, with those of its number of images per class."""
        options = dict(run.options)
        if run.shots:
            options |= k_shot_options(self.configs.load(run.config, options), run.shots)
        return options

    def _seeded(self, name: str, seed: int | None) -> str:
        return name if seed is None else f"{name}_seed{seed}"

    def _is_finetuning(self, config: str) -> bool:
        return self.configs.folder(config).startswith("finetune")


def _is_coco(config: Config) -> bool:
    evaluator = config.test_evaluator
    return isinstance(evaluator, dict) and evaluator["type"] == "CocoMetric"


def _with_tta(config: Config) -> Config:
    """Change a config as mmdet's test.py does for ``--tta``; MMEngine dumps the changed one."""
    for key in ("tta_model", "tta_pipeline"):
        if key not in config:
            raise ValueError(f"{config.filename}: no {key}; predictions are made with --tta")
    config = config.copy()
    config.model = dict(**config.tta_model, module=config.model)
    config.test_dataloader.dataset.pipeline = config.tta_pipeline
    return config


def _package(config: Config) -> str:
    """Package whose train.py runs a config."""
    return "mmpretrain" if config.model.type == "ImageClassifier" else "mmdet"
