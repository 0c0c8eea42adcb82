"""Commands for training, testing and pseudo boxes, in one process, several, or by Slurm."""

from __future__ import annotations

from argparse import ArgumentParser
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from mmengine.config import DictAction

from .shipped import from_here, tools_folder


@dataclass(frozen=True)
class Launcher:
    """How commands are started.

    Attributes:
        gpus: Number of processes, one per GPU.
        kind: ``'pytorch'`` (torchrun on this machine) or ``'slurm'``.
        partition: Partition of Slurm.
        gpus_per_node: GPUs per node of Slurm.

    Raises:
        ValueError: If a value is out of range, or Slurm has no partition.
    """

    gpus: int = 1
    kind: str = "pytorch"
    partition: str = ""
    gpus_per_node: int = 8

    def __post_init__(self) -> None:
        if self.gpus < 1 or self.gpus_per_node < 1:
            raise ValueError(f"gpus: expected 1 or more, found {self.gpus}, {self.gpus_per_node}")
        if self.kind == "slurm" and not self.partition:
            raise ValueError("launcher slurm: expected the name of a partition (--partition)")

    def at_most(self, gpus: int) -> Launcher:
        """Copy the launcher with at most this number of processes."""
        return replace(self, gpus=min(gpus, self.gpus))

    def train(
        self, package: str, config: Path, work_dir: str, options: Mapping[str, object], resume: bool
    ) -> list[str]:
        """Build the command that trains a config of ``'mmdet'`` or ``'mmpretrain'``."""
        arguments = ["--work-dir", work_dir, *(["--resume"] if resume else [])]
        start = self._start("train", package, config, Path(work_dir).name)
        return [*start, *arguments, *option_words(options)]

    def test(
        self,
        package: str,
        config: Path,
        checkpoint: str,
        work_dir: str,
        options: Mapping[str, object],
        tta: bool = False,
    ) -> list[str]:
        """Build the command that tests a checkpoint, optionally with test-time augmentation."""
        arguments = ["--work-dir", work_dir, *(["--tta"] if tta else []), *option_words(options)]
        name = "_".join(Path(work_dir).parts[-2:])
        start = self._start("test", package, config, name, checkpoint)
        return [*start, *arguments]

    def boxes(
        self, config: Path, checkpoint: str, out: str, options: Mapping[str, object]
    ) -> list[str]:
        """Build the command that generates pseudo boxes."""
        arguments = [str(from_here(config)), checkpoint, "--out", out, *option_words(options)]
        tools = tools_folder()
        if self.kind == "slurm":
            start = ["env", *self._gpu_variables, "bash", str(tools / "slurm.sh")]
            return [*start, "boxes", self.partition, "boxes", *arguments]
        if self.gpus > 1:
            return ["bash", str(tools / "dist.sh"), "boxes", str(self.gpus), *arguments]
        return ["python", str(tools / "generate_pseudo_boxes.py"), *arguments]

    def _start(
        self, tool: str, package: str, config: Path, name: str, checkpoint: str = ""
    ) -> list[str]:
        """Build the command up to config and checkpoint."""
        files = [str(from_here(config)), *([checkpoint] if checkpoint else [])]
        environment = ["env", f"PACKAGE={package}"] if package != "mmdet" else []
        script = tools_folder() / f"{'slurm' if self.kind == 'slurm' else 'dist'}_{tool}.sh"
        if self.kind == "slurm":
            env = ["env", *environment[1:], *self._gpu_variables]
            return [*env, "bash", str(script), self.partition, name, *files]
        if self.gpus > 1:
            return [*environment, "bash", str(script), *files, str(self.gpus)]
        return ["python", "-m", "dap.launch", package, tool, *files]  # as mim does

    @property
    def _gpu_variables(self) -> list[str]:
        return [f"GPUS={self.gpus}", f"GPUS_PER_NODE={min(self.gpus, self.gpus_per_node)}"]


def training_options(words: Sequence[str], vis_backends: Sequence[str] = ()) -> dict[str, object]:
    """Parse options for every training from a command line.

    Args:
        words: ``KEY=VALUE``, as in MMEngine's ``--cfg-options``.
        vis_backends: Types of visualizer backends to add to ``LocalVisBackend``, which writes the
            files that curves and tables are made from.

    Returns:
        Keys of a config → values.

    Raises:
        ValueError: If a word is not ``KEY=VALUE``.
    """
    for word in words:
        if not word.partition("=")[0] or "=" not in word:
            raise ValueError(f"--cfg-options: expected KEY=VALUE, found {word!r}")
    parser = ArgumentParser()
    parser.add_argument("--cfg-options", nargs="+", action=DictAction, default={})
    arguments = ["--cfg-options", *words] if words else []
    options: dict[str, object] = dict(parser.parse_args(arguments).cfg_options)
    if vis_backends:
        options["visualizer.vis_backends.0.type"] = "dap.VisBackends"
        options["visualizer.vis_backends.0.backends"] = ["LocalVisBackend", *vis_backends]
    return options


def option_words(options: Mapping[str, object]) -> list[str]:
    """The words of ``--cfg-options`` as MMEngine reads them: lists without spaces."""
    if not options:
        return []
    written = (f"{key}={str(value).replace(' ', '')}" for key, value in options.items())
    return ["--cfg-options", *written]
