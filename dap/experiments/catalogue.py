"""Parts of an experiment: runs, and the cells, rows and tables that they fill."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Run:
    """A run of a config with options.

    Attributes:
        config: Base name of the config, without ``.py``.
        options: Keys of the config → values that override it.
        name: Folder in the work directory. Defaults to ``config``.
        checkpoint: Checkpoint to test, for a run without training.
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
    """A figure of the paper, and the run that reproduces it.

    Attributes:
        column: Title of the column.
        run: Run whose test, or summary of boxes, has the figure.
        metric: Name of the figure in that result, ``'voc_area/mAP'`` (shown in percent) or
            ``'merged.mean_width'``; None for a run without a figure.
        paper: The paper's figure; None if the paper only plots it, or lacks it.
        decimals: Number of decimals that the paper prints.
        note: Remark on the paper's figure, shown below the table.
    """

    column: str
    run: Run
    metric: str | None = None
    paper: float | None = None
    decimals: int = 2
    note: str = ""


@dataclass(frozen=True)
class Row:
    """A row of a table.

    Attributes:
        name: Name in the table; ``--only`` selects by its words.
        cells: Cells from left to right.
        against: Name of the row to compare with, the CLS twin.
    """

    name: str
    cells: tuple[Cell, ...]
    against: str | None = None

    def matches(self, words: Sequence[str]) -> bool:
        """Whether the name has all of these words."""
        return all(word in self.name.split() for word in words)


@dataclass(frozen=True)
class Experiment:
    """A table or figure of the paper.

    Attributes:
        name: ``'table2'``.
        title: Content of the table.
        rows: Rows of the table.
    """

    name: str
    title: str
    rows: tuple[Row, ...]

    def select(self, only: Sequence[str] = ()) -> tuple[Row, ...]:
        """Rows whose names have all the words of ``only``; all rows if it is empty.

        Raises:
            ValueError: If there is no such row.
        """
        rows = tuple(row for row in self.rows if row.matches(only))
        if not rows:
            raise ValueError(
                f"{self.name} has no row with {' '.join(only)!r} in its name. Its rows: "
                f"{', '.join(row.name for row in self.rows)}; --only takes words of these names"
            )
        return rows
