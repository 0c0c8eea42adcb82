"""Jobs: commands with their inputs and results, in the order in which they can run."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from mmengine.config import Config

from dap.pseudo_boxes import PseudoBoxSettings

from .shipped import tools_folder


@dataclass(frozen=True)
class Job:
    """A command and the file that exists when it is finished.

    Attributes:
        name: Folder in the work directory, or file.
        kind: ``'boxes'``, ``'train'``, ``'extract'``, ``'test'``, ``'predict'`` or ``'files'``.
        command: Program and arguments; ``python`` is this interpreter.
        makes: File, or pattern of files, that exists when the job is finished.
        config: Config with its options; None if the command runs no config.
        settings: Settings of pseudo boxes.
        inputs: Files and folders that the command reads.
        reads: Those inputs that other jobs make.
        compared: Those inputs whose content decides the result. It is recorded; a result that was
            made from other content does not belong to this job. Defaults to all inputs.
        batch: Images per training iteration of all processes together; 0 if not known.
        gpus: Number of GPUs; 0 for a process without one.
    """

    name: str
    kind: str
    command: tuple[str, ...]
    makes: str
    config: Config | None = None
    settings: PseudoBoxSettings | None = None
    inputs: tuple[str, ...] = ()
    reads: tuple[str, ...] = ()
    batch: int = 0
    gpus: int = 0
    compared: tuple[str, ...] = None  # type: ignore[assignment]

    def __post_init__(self) -> None:
        if self.compared is None:
            object.__setattr__(self, "compared", self.inputs)

    @property
    def resumed(self) -> tuple[str, ...]:
        """Command that resumes an unfinished training."""
        return (*self.command, "--resume")


class Jobs(dict[str, Job]):
    """Jobs by name, each after those whose files it reads."""

    def add(self, name: str, kind: str, command: Iterable[str], makes: str, **fields: Any) -> str:
        """Add a job unless one of its name exists; return the file that it makes.

        Args:
            name: See :class:`Job`.
            kind: See :class:`Job`.
            command: See :class:`Job`.
            makes: See :class:`Job`.
            **fields: Other fields of :class:`Job`, except ``reads``: these are the ``inputs`` that
                earlier jobs make.
        """
        if name not in self:
            results = {job.makes for job in self.values()}
            reads = tuple(path for path in fields.get("inputs", ()) if path in results)
            self[name] = Job(name, kind, tuple(command), makes, reads=reads, **fields)
        return makes


def tool_command(tool: str, *arguments: object) -> list[str]:
    """Build the command of one of the project's tools, ``few_shot`` for ``tools/few_shot.py``."""
    return ["python", str(tools_folder() / f"{tool}.py"), *map(str, arguments)]
