"""The parts of a detector that the user selects for transfer."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from .report import shorten


class Selection(NamedTuple):
    """Modules of a detector, selected by their dotted names.

    Attributes:
        parts: Modules to transfer; None for all.
        exclude: Modules to leave out, also inside ``parts``.
    """

    parts: tuple[str, ...] | None = None
    exclude: tuple[str, ...] = ()

    @classmethod
    def of(cls, parts: str | Sequence[str] | None, exclude: str | Sequence[str]) -> "Selection":
        """Make a selection from the user's arguments.

        Args:
            parts: One name or several, or None for all.
            exclude: One name or several.

        Raises:
            ValueError: If ``parts`` is empty.
        """
        if parts is not None and not parts:
            raise ValueError("parts is empty; expected names of modules, or None for all of them")
        return cls(None if parts is None else dotted_names(parts), dotted_names(exclude))

    def leaves_out(self, name: str) -> bool:
        """Whether the tensor with this name in the ``state_dict`` is left out."""
        selected = self.parts is None or _is_inside(name, self.parts)
        return not selected or _is_inside(name, self.exclude)

    def check(self, names: Iterable[str], parts: Iterable[str], owner: str) -> None:
        """Check that the names exist and that the selection is not empty.

        Args:
            names: Names of the tensors to select from.
            parts: Names to suggest for an unknown one.
            owner: What the tensors belong to, for the error.

        Raises:
            ValueError: If a module has no tensors, or if no tensor is selected.
        """
        names = list(names)
        for argument, modules in (("parts", self.parts or ()), ("exclude", self.exclude)):
            for part in modules:
                if not any(_is_inside(name, (part,)) for name in names):
                    raise ValueError(
                        f"{argument}: {owner} has no weights in {part!r}; expected some of "
                        f"{shorten(parts)}, or modules inside of these"
                    )
        if all(self.leaves_out(name) for name in names):
            raise ValueError(
                f"parts={self.parts} and exclude={self.exclude} leave nothing of {owner} to load; "
                "expected modules in parts that exclude does not name"
            )


def dotted_names(names: str | Sequence[str]) -> tuple[str, ...]:
    """Return one or several module names as a tuple, without trailing dots."""
    return tuple(n.rstrip(".") for n in ([names] if isinstance(names, str) else names))


def _is_inside(name: str, modules: Iterable[str]) -> bool:
    return any(name == module or name.startswith(f"{module}.") for module in modules)
