"""Command lines of training, testing and pseudo boxes: one process, several, or Slurm."""

from __future__ import annotations

from argparse import ArgumentParser
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from mmengine.config import DictAction

from .config_tree import from_here, tools_folder


@dataclass(frozen=True)
class Launcher:
    """How commands are started.

    Attributes:
        gpus: Processes in all, one per GPU.
        kind: ``'pytorch'`` (torchrun on this machine) or ``'slurm'``.
        partition: Of Slurm.
        gpus_per_node: Of Slurm.

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
        """The same with no more than this number of processes."""
        return replace(self, gpus=min(gpus, self.gpus))

    def train(
        self, package: str, config: Path, work_dir: str, options: Mapping[str, object], resume: bool
    ) -> list[str]:
        """Train a config of ``'mmdet'`` or ``'mmpretrain'``."""
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
        """Test a checkpoint, with test-time augmentation if asked for."""
        arguments = ["--work-dir", work_dir, *(["--tta"] if tta else []), *option_words(options)]
        name = "_".join(Path(work_dir).parts[-2:])
        start = self._start("test", package, config, name, checkpoint)
        return [*start, *arguments]

    def boxes(
        self, config: Path, checkpoint: str, out: str, options: Mapping[str, object]
    ) -> list[str]:
        """Generate pseudo boxes."""
        arguments = [str(from_here(config)), checkpoint, "--out", out, *option_words(options)]
        tools = tools_folder()
        if self.kind == "slurm":
            script = str(tools / "slurm.sh")
            return [
                "env",
                *self._shares,
                "bash",
                script,
                "boxes",
                self.partition,
                "boxes",
                *arguments,
            ]
        if self.gpus > 1:
            return ["bash", str(tools / "dist.sh"), "boxes", str(self.gpus), *arguments]
        return ["python", str(tools / "generate_pseudo_boxes.py"), *arguments]

    def _start(
        self, tool: str, package: str, config: Path, name: str, checkpoint: str = ""
    ) -> list[str]:
        """The command up to and with config and checkpoint."""
        given = [str(from_here(config)), *([checkpoint] if checkpoint else [])]
        environment = ["env", f"PACKAGE={package}"] if package != "mmdet" else []
        script = tools_folder() / f"{'slurm' if self.kind == 'slurm' else 'dist'}_{tool}.sh"
        if self.kind == "slurm":
            env = ["env", *environment[1:], *self._shares]
            return [*env, "bash", str(script), self.partition, name, *given]
        if self.gpus > 1:
            return [*environment, "bash", str(script), *given, str(self.gpus)]
        return ["python", "-m", "dap.launch", package, tool, *given]  # as mim does, without mim

    @property
    def _shares(self) -> list[str]:
        return [f"GPUS={self.gpus}", f"GPUS_PER_NODE={min(self.gpus, self.gpus_per_node)}"]


def training_options(words: Sequence[str], vis_backends: Sequence[str] = ()) -> dict[str, object]:
    """Options for every training, as people write them on a command line.

    Args:
        words: ``KEY=VALUE``, as MMEngine's ``--cfg-options`` takes them.
        vis_backends: Types of visualizer backends beside ``LocalVisBackend``, which writes the
            files that curves and tables are made from.

    Returns:
        Keys of a config → values.

    Raises:
        ValueError: If a word has no key.
    """
    for word in words:
        if not word.partition("=")[0] or "=" not in word:
            raise ValueError(f"--cfg-options: expected KEY=VALUE, found {word!r}")
    parser = ArgumentParser()
    parser.add_argument("--cfg-options", nargs="+", action=DictAction, default={})
    given = ["--cfg-options", *words] if words else []
    options: dict[str, object] = dict(parser.parse_args(given).cfg_options)
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
