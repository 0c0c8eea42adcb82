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
        self, package: str, config: Path, work_dir: str, options: Mapping[str, object]
    ) -> list[str]:
        """Build the command that trains a config of ``'mmdet'`` or ``'mmpretrain'``."""
        arguments = ["--work-dir", work_dir, *option_words(options)]
        return self._command("train", Path(work_dir).name, config, *arguments, package=package)

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
        return self._command("test", name, config, checkpoint, *arguments, package=package)

    def boxes(
        self, config: Path, checkpoint: str, out: str, options: Mapping[str, object]
    ) -> list[str]:
        """Build the command that generates pseudo boxes."""
        arguments = [checkpoint, "--out", out, *option_words(options)]
        return self._command("boxes", "boxes", config, *arguments)

    def _command(
        self, tool: str, name: str, config: Path, *arguments: str, package: str = "mmdet"
    ) -> list[str]:
        """Build the command of a tool of ``dist.sh``; ``name`` is that of the Slurm job."""
        tools = tools_folder()
        words = [str(from_here(config)), *arguments]
        variables = [f"PACKAGE={package}"] if package != "mmdet" else []
        if self.kind == "slurm":
            per_node = min(self.gpus, self.gpus_per_node)
            variables += [f"GPUS={self.gpus}", f"GPUS_PER_NODE={per_node}"]
            script = ["bash", str(tools / "slurm.sh"), tool, self.partition, name]
            return ["env", *variables, *script, *words]
        if self.gpus > 1:
            script = ["bash", str(tools / "dist.sh"), tool, str(self.gpus)]
            return [*(["env", *variables] if variables else []), *script, *words]
        if tool == "boxes":
            return ["python", str(tools / "generate_pseudo_boxes.py"), *words]
        return ["python", "-m", "dap.launch", package, tool, *words]  # as mim does


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
