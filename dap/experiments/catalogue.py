"""What an experiment is made of: runs, the cells they fill, the rows and tables of the cells."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Run:
    """A config, run with options under a name.

    Attributes:
        config: Base name of the config, without ``.py``.
        options: Keys of the config → values that differ from it.
        name: Folder below the work directory. Defaults to ``config``.
        checkpoint: What is tested, for a run that trains nothing.
        shots: Key of the config's ``k_shot_schedules``, ``'10shot'`` or ``'5shot-3x'``; empty for
            a config that is not for k images per class.
    """

    config: str
    options: Mapping[str, object] = field(default_factory=dict)
    name: str = ""
    checkpoint: str = ""
    shots: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "name", self.name or self.config)


@dataclass(frozen=True)
class Cell:
    """A figure of the paper, and the run that gives the figure to compare it with.

    Attributes:
        column: Its column.
        run: The run whose test, or summary of boxes, gives the figure.
        metric: Its name there, ``'voc_area/mAP'`` (shown in percent) or ``'merged.mean_width'``;
            None for a run that makes something and measures nothing.
        paper: The paper's figure; None where the paper only draws it, or has none.
        decimals: Those that the paper prints.
        note: What has to be said of the paper's figure; below the table, with a mark at the figure.
    """

    column: str
    run: Run
    metric: str | None = None
    paper: float | None = None
    decimals: int = 2
    note: str = ""


@dataclass(frozen=True)
class Row:
    """A line of a table.

    Attributes:
        name: For people and for ``--only``.
        cells: From left to right.
        against: Name of the row it is compared with: the CLS twin.
    """

    name: str
    cells: tuple[Cell, ...]
    against: str | None = None

    def matches(self, words: Sequence[str]) -> bool:
        """Whether all words are in the name; a word is a whole part of it."""
        return all(word in self.name.split() for word in words)


@dataclass(frozen=True)
class Experiment:
    """A table or figure of the paper.

    Attributes:
        name: ``'table2'``.
        title: What it shows.
        rows: Its lines.
    """

    name: str
    title: str
    rows: tuple[Row, ...]

    def select(self, only: Sequence[str] = ()) -> tuple[Row, ...]:
        """Rows whose names have all the words of ``only``; all rows for none.

        Raises:
            ValueError: If no row has them.
        """
        rows = tuple(row for row in self.rows if row.matches(only))
        if not rows:
            raise ValueError(
                f"{self.name} has no row with {' '.join(only)!r} in its name. Its rows: "
                f"{', '.join(row.name for row in self.rows)}; --only takes words of these names"
            )
        return rows
