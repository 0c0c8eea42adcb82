"""Jobs: commands, the files that show that they are finished, and their order."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from mmengine.config import Config

from dap.pseudo_boxes import PseudoBoxSettings

from .config_tree import tools_folder


@dataclass(frozen=True)
class Job:
    """A command and the files that show that it is finished.

    Attributes:
        name: Folder below the work directory, or file.
        kind: ``'boxes'``, ``'train'``, ``'extract'``, ``'test'`` or ``'files'``.
        command: Program and arguments; ``python`` is this interpreter.
        makes: File, or pattern of files, that is there when it is finished.
        resumed: The command that goes on with an unfinished one, if that is another.
        config: What it runs, its options included; None where there is no config.
        settings: Of pseudo boxes.
        inputs: Files and folders that it reads.
        reads: Those of them that other jobs make.
        compared: Those of them whose content decides the result: it is recorded, and a result of
            other content is not of this job. Defaults to all of them.
        batch: Images of a training iteration, all processes together; 0 if that is not known.
        gpus: GPUs that it uses; 0 for one process without.
    """

    name: str
    kind: str
    command: tuple[str, ...]
    makes: str
    resumed: tuple[str, ...] = ()
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


class Jobs(dict[str, Job]):
    """Jobs by name, each after those whose files it reads."""

    def put(self, name: str, kind: str, command: Iterable[str], makes: str, **more: Any) -> str:
        """Add a job unless one of its name exists; return what it makes.

        Args:
            name: See :class:`Job`, as all others.
            kind: See there.
            command: See there.
            makes: See there.
            **more: See there; ``reads`` are those of ``inputs`` that earlier jobs make.
        """
        if name not in self:
            made = {job.makes for job in self.values()}
            reads = tuple(path for path in more.get("inputs", ()) if path in made)
            self[name] = Job(name, kind, tuple(command), makes, reads=reads, **more)
        return makes


def tool_command(tool: str, *arguments: object) -> list[str]:
    """Command that runs one of the project's tools, ``few_shot`` for ``tools/few_shot.py``."""
    return ["python", str(tools_folder() / f"{tool}.py"), *map(str, arguments)]
