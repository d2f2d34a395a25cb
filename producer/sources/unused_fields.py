"""Finds fields of a row that look meant, and that no option uses."""

from collections.abc import Callable, Collection

# What would use each; those without an option of their own are the same for a whole run.
_USED_BY = {
    "key": "--key-column key",
    "priority": "--priority-column priority",
    "metadata": "--metadata-column metadata",
    "batch": "--batch NAME, for all of a run",
    "tenant": "--tenant NAME, for all of a run",
    "policy": "--policy ID, for all of a run",
}


class UnusedFields:
    """Says once of each such field that it is there."""

    def __init__(self, say: Callable[[str], None] = lambda _: None) -> None:
        self._say = say
        self._unreported = set(_USED_BY)

    def look(self, names: Collection[str], used: Collection[str | None]) -> None:
        """names: of a row's fields, or a table's columns. used: those that an option names."""
        unused = (
            [name for name in names if name in self._unreported and name not in used]
            if self._unreported
            else []
        )
        if unused:
            self._unreported.difference_update(unused)
            self._say("not used: " + "; ".join(f"{name} ({_USED_BY[name]})" for name in unused))
