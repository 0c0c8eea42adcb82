"""Which parts of a detector its user wants to move."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from dap.transfer.report import shorten


class Selection(NamedTuple):
    """Modules of a detector, chosen by their dotted names.

    Attributes:
        parts: What moves; None for all.
        exclude: What does not, also inside ``parts``.
    """

    parts: tuple[str, ...] | None = None
    exclude: tuple[str, ...] = ()

    @classmethod
    def of(cls, parts: str | Sequence[str] | None, exclude: str | Sequence[str]) -> "Selection":
        """Take the arguments of a user.

        Args:
            parts: One name or several, or None for all.
            exclude: One name or several.

        Returns:
            The selection.

        Raises:
            ValueError: If ``parts`` is empty.
        """
        if parts is not None and not parts:
            raise ValueError("parts is empty; expected names of modules, or None for all of them")
        return cls(None if parts is None else dotted_names(parts), dotted_names(exclude))

    def leaves_out(self, name: str) -> bool:
        """Whether a tensor is left out, by its name in the detector's ``state_dict``."""
        chosen = self.parts is None or _is_inside(name, self.parts)
        return not chosen or _is_inside(name, self.exclude)

    def check(self, names: Iterable[str], parts: Iterable[str], owner: str) -> None:
        """Check that the names exist and that the selection is not empty.

        Args:
            names: The tensors to choose from.
            parts: What to propose instead of an unknown name.
            owner: Whose tensors these are, for the error.

        Raises:
            ValueError: If a name has no tensors, or if no tensor is chosen.
        """
        names = list(names)
        for argument, chosen in (("parts", self.parts or ()), ("exclude", self.exclude)):
            for part in chosen:
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
    """Take one name of a module or several, with or without a dot behind."""
    return tuple(n.rstrip(".") for n in ([names] if isinstance(names, str) else names))


def _is_inside(name: str, modules: Iterable[str]) -> bool:
    return any(name == module or name.startswith(f"{module}.") for module in modules)
