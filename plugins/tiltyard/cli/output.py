"""How results are printed: text for a person, or one JSON document. Progress and warnings go to stderr."""

import json
import os
import re
import sys
import textwrap
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import NoReturn

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from tiltyard.errors import CheckFailed
from tiltyard.records import Record
from tiltyard.words import shown

out = Console(highlight=False, width=None if sys.stdout.isatty() else 10_000)  # a pipe has no edge to cut tables at
err = Console(stderr=True, highlight=False)

_LABEL = re.compile(r" *(?:\S+ {2,})?")
"""What a line begins with, before its text: spaces, and a name with more of them."""
Step = Callable[[str, float | None], None]
"""Takes the label of a step and the share of the work that is done, in [0, 1]; None where it is not known."""


def emit(result: object, as_json: bool, text: Callable[[], object] | None = None) -> None:
    """Print what a command came to. `text` prints it for a person; without it every field gets a line."""
    if as_json:
        print(json.dumps(result, default=_json_default, indent=2, allow_nan=False))
    elif text:
        text()
    else:
        _print_fields(result.to_json() if isinstance(result, Record) else result)


def say(text: str) -> None:
    """Print lines for a person: as they are into a pipe, and on a terminal broken between words."""
    out.print(plain(_fitted(text, out)), soft_wrap=True)


def write_bytes(content: bytes) -> None:
    """Hand a file on by standard output, whole; nothing where whoever reads it has stopped reading."""
    try:
        sys.stdout.buffer.write(content)
        sys.stdout.buffer.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # so that nothing is flushed to it at the end


def print_error(sentence: str) -> None:
    """The one place that prints an error. A pipe gets it as one line."""
    err.print(f"[bold red]error[/] {plain(_fitted(f'error {sentence}', err))[6:]}", soft_wrap=True)


def failed(sentence: str) -> NoReturn:
    """End a command that has printed what it came to, since a check failed: with exit code 1, and stdout as it is, one
    document with --json."""
    print_error(sentence)
    raise typer.Exit(CheckFailed.exit_code)


def warn(sentence: str) -> None:
    """Say on stderr what is waited for."""
    err.print(f"[yellow]waiting[/] {plain(_fitted(f'waiting {sentence}', err))[8:]}", soft_wrap=True)


def caution(sentence: str) -> None:
    """Say on stderr what is not an error and still not as somebody may think."""
    err.print(f"[yellow]warning[/] {plain(_fitted(f'warning {sentence}', err))[8:]}", soft_wrap=True)


def _fitted(text: str, console: Console) -> str:
    """Lines that fit into a terminal, broken between words and indented as their text begins: no word, name or path is
    broken in two. For anything else than a terminal as they are."""
    if not console.is_terminal:
        return text
    lines = []
    for line in text.splitlines():
        label = _LABEL.match(line)
        indent = " " * min(len(label[0]) if label else 0, console.width // 3)
        lines += textwrap.wrap(
            line, max(console.width, 20), subsequent_indent=indent, break_long_words=False, break_on_hyphens=False,
            replace_whitespace=False, drop_whitespace=True,
        ) or [""]  # fmt: skip
    return "\n".join(lines)


def plain(text: str) -> str:
    """`text` with nothing in it that rich takes for markup, or that a terminal obeys."""
    return shown(text).replace("[", "\\[")


def table(rows: Sequence[Mapping[str, object]]) -> None:
    """Print rows that have the same fields, one column a field; where they are too wide for that, one line a field, so
    that no name is cut off."""
    from rich.cells import cell_len
    from rich.table import Table

    cells = [[_cell(value) for value in row.values()] for row in rows]
    names = [*rows[0]] if rows else []
    widths = [max(map(cell_len, column)) for column in zip(names, *cells, strict=True)]
    if sum(widths) + 2 * len(widths) > out.width:
        for row in rows:
            _print_fields([{name: value for name, value in row.items() if value != ""}])
        return
    grid = Table(box=None, header_style="bold")
    for name in names:
        grid.add_column(name, no_wrap=True)
    for line in cells:
        grid.add_row(*line)
    out.print(grid)


def glance(rows: Iterable[Mapping[str, str]]) -> None:
    """Print rows whose last field is a sentence: it is cut at the edge of the terminal, and no other is ever broken.
    Where the others alone are too wide for the terminal, one line a field, so that none of them is left out."""
    from rich.cells import cell_len
    from rich.table import Table

    rows = list(rows)
    widths = [max(map(cell_len, (name, *(row[name] for row in rows)))) for name in [*rows[0]][:-1]] if rows else []
    if sum(widths) + len(widths) >= out.width:
        for row in rows:
            _print_fields(row)
        return

    grid = Table(box=None, header_style="bold", padding=(0, 1, 0, 0))
    for name in [*rows[0]][:-1] if rows else []:
        grid.add_column(name, no_wrap=True)
    if rows:  # what is left: rich would take what a long sentence lacks from all columns alike
        left = out.width - sum(widths) - len(widths) - 1
        grid.add_column([*rows[0]][-1], no_wrap=True, overflow="ellipsis", max_width=max(left, 1))
    for row in rows:
        grid.add_row(*map(plain, row.values()))
    out.print(grid)


def _cell(value: object) -> str:
    return ("yes" if value else "no") if isinstance(value, bool) else plain(str(value))


def _json_default(value: object) -> object:
    if isinstance(value, Record):
        return value.to_json()
    if isinstance(value, Path | timedelta):
        return str(value)
    if hasattr(value, "isoformat"):
        return value.isoformat()
    if hasattr(value, "item"):  # a number of NumPy's
        return value.item()
    raise TypeError(f"{type(value).__name__} is not JSON")


def _print_fields(result: object, indent: int = 0) -> None:
    """Print a mapping or a list, a line for each value, nested ones indented."""
    pairs = result.items() if isinstance(result, Mapping) else (("-", value) for value in _sequence(result))
    for name, value in pairs:
        label = plain(f"{'  ' * indent}{name}")
        nested = value.to_json() if isinstance(value, Record) else value
        if isinstance(nested, Mapping | list | tuple) and nested:
            out.print(f"[bold]{label}[/]")
            _print_fields(nested, indent + 1)
        else:
            out.print(f"[bold]{label}[/] {_cell(nested) if nested not in (None, [], {}, ()) else '–'}")


def _sequence(result: object) -> Sequence[object]:
    return result if isinstance(result, list | tuple) else ()


@contextmanager
def progress(quiet: bool) -> Iterator[Step]:
    """A bar on a terminal, plain lines otherwise, on stderr in both cases; nothing when `quiet`."""
    if quiet or not err.is_terminal:
        yield _lines_of_progress(quiet)
        return
    columns = (TextColumn("{task.description:<28}"), BarColumn(), TextColumn("{task.percentage:>3.0f}%"))
    with Progress(*columns, TimeElapsedColumn(), TimeRemainingColumn(), console=err) as bar:
        task = bar.add_task("", total=1.0)
        yield lambda label, share: bar.update(task, description=label, completed=share)


def _lines_of_progress(quiet: bool) -> Step:
    """A line whenever the label changes."""
    last_label = ""

    def print_label(label: str, share: float | None) -> None:
        nonlocal last_label
        if not quiet and label != last_label:
            print(label if share is None else f"[{share:4.0%}] {label}", file=sys.stderr, flush=True)
            last_label = label

    return print_label
