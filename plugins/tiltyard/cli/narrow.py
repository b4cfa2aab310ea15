"""Help where the terminal is narrow: every option on a line of its own, and what it does below it.

In columns beside each other, which are readable from some width on, the names of options and the words about them are
cut off where they do not fit.
"""

from collections.abc import Iterable
from typing import Any

import typer
from typer.core import TyperCommand

WIDE = 78
"""From so many columns on what an option does stands beside it."""

_Formatter: Any = TyperCommand.context_class.formatter_class


class Stacked(_Formatter):  # type: ignore[misc]  # typer's own, which it does not name
    """Terms, each with its text below it."""

    def write_dl(self, rows: Iterable[tuple[str, str]], col_max: int = 30, col_spacing: int = 2) -> None:
        """Write a list of terms and texts."""
        for term, text in rows:
            self.write(f"{'':>{self.current_indent}}{term}\n")
            if text:
                with self.indentation():
                    self.write_text(text)


def fit(app: typer.Typer, columns: int) -> None:
    """Let the help of an app fit into so many columns."""
    app.rich_markup_mode = "rich" if columns >= WIDE else None
    TyperCommand.context_class.formatter_class = _Formatter if columns >= WIDE else Stacked
