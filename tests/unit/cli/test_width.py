"""At 80 and at 60 columns no word is broken in two, and no name is cut off."""

import io
from collections.abc import Iterator

import pytest
from rich.console import Console
from typer.main import get_command
from typer.testing import CliRunner

from tiltyard.cli import narrow, output
from tiltyard.cli.entry import app

FRAME = "─│╭╮╰╯┏┓┗┛━┃"
"""What frames are drawn with."""


def commands() -> Iterator[tuple[str, ...]]:
    """Every command and group, by the words that call it."""
    waiting = [((), get_command(app))]
    while waiting:
        words, command = waiting.pop()
        yield words
        below = getattr(command, "commands", {})
        waiting += [((*words, name), entry) for name, entry in below.items()]


def said(words: tuple[str, ...]) -> set[str]:
    """The words of a command's help, and of its arguments and options."""
    command = get_command(app)
    for word in words:
        command = command.commands[word]  # type: ignore[attr-defined]
    texts = [command.help or "", *(getattr(parameter, "help", None) or "" for parameter in command.params)]
    texts += [option for parameter in command.params for option in parameter.opts if option.startswith("--")]
    return {word for text in texts for word in text.split()}


@pytest.mark.parametrize("columns", [80, 60])
@pytest.mark.parametrize("words", sorted(commands()), ids=lambda words: " ".join(words) or "tiltyard")
def test_no_word_of_a_help_is_broken(words: tuple[str, ...], columns: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setattr("typer.rich_utils.MAX_WIDTH", columns)
    narrow.fit(app, columns)
    try:
        shown = CliRunner().invoke(app, [*words, "--help"], terminal_width=columns).output
    finally:
        narrow.fit(app, 100)
    assert max(map(len, shown.splitlines())) <= columns
    words_shown = shown.translate(str.maketrans(FRAME, " " * len(FRAME))).split()
    there = {part for word in words_shown for part in (word, *word.split(","))}
    assert said(words) - there == set()


ROWS = [
    {
        "model": "customer_repurchase_of_a_long_name", "owner": "wholesale-and-everything-else 🦉", "tier": 3,
        "entity": "buyer", "source": "retail", "active": False, "horizon": "30d", "not_in_force_yet": "changed",
    },
    {
        "model": "churn", "owner": "subscriptions", "tier": 1, "entity": "customer", "source": "subscription",
        "active": True, "horizon": "until appointment_day, at most 180d", "not_in_force_yet": "",
    },
]  # fmt: skip


@pytest.mark.parametrize("columns", [40, 60, 80, 200])
def test_a_table_cuts_off_no_name(columns: int, monkeypatch: pytest.MonkeyPatch) -> None:
    shown = io.StringIO()
    monkeypatch.setattr(output, "out", Console(file=shown, width=columns, highlight=False))
    output.table(ROWS)
    text = shown.getvalue()
    assert "…" not in text
    assert {str(value) for row in ROWS for value in row.values() if isinstance(value, str) and " " not in value} <= {
        *text.split(), "",
    }  # fmt: skip
    assert "30d" in text
    assert (len(text.splitlines()) == 3) == (columns == 200)


@pytest.mark.parametrize("columns", [60, 80])
def test_lines_are_broken_between_words_on_a_terminal_and_nowhere_in_a_pipe(
    columns: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = "/home/ann/.tiltyard/quarantine/subscription/payment/2025-05-29-of-the-evening.csv.reason.json"
    text = f"churn: held\n  gate         hold: of 20 nights that are needed 12 have matured [see {path}] since February"
    for is_terminal in (True, False):
        shown = io.StringIO()
        console = Console(file=shown, width=columns, highlight=False, force_terminal=is_terminal, no_color=True)
        monkeypatch.setattr(output, "out", console)
        monkeypatch.setattr(output, "err", console)
        output.say(text)
        said = shown.getvalue()
        assert text.split() == said.split(), "every word is whole"
        lines = said.splitlines()
        assert len(lines) > 3 if is_terminal else said == f"{text}\n"
        assert all(len(line) <= columns or path in line for line in lines if is_terminal)
        assert all(line.startswith(" " * 15) for line in lines[2:])
        output.print_error(f"There is no file {path}, and a sentence that goes on for a while after its name.")
        assert path in shown.getvalue()


def test_a_long_sentence_at_the_end_of_a_glance_takes_nothing_from_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = io.StringIO()
    monkeypatch.setattr(output, "out", Console(file=shown, width=80, highlight=False))
    row = {"model": "claim_rejected", "state": "retired", "serves": "default", "loss": "0.0812", "vs default": "+19 %"}
    output.glance([{**row, "drift": "steady", "why": "it goes on and on " * 20}, {**row, "drift": "alarm", "why": "–"}])
    head, long, short = shown.getvalue().splitlines()
    assert head.split() == ["model", "state", "serves", "loss", "vs", "default", "drift", "why"]
    assert long.split()[:7] == ["claim_rejected", "retired", "default", "0.0812", "+19", "%", "steady"]
    assert short.split()[:7] == ["claim_rejected", "retired", "default", "0.0812", "+19", "%", "alarm"]
    assert long.rstrip().endswith("…") and len(long) <= 80


@pytest.mark.parametrize("columns", [80, 20])
def test_no_field_of_a_glance_is_left_out_and_none_is_obeyed(columns: int, monkeypatch: pytest.MonkeyPatch) -> None:
    shown = io.StringIO()
    monkeypatch.setattr(output, "out", Console(file=shown, width=columns, highlight=False))
    name = "a_model_of_a_name_that_is_as_long_as_any_name_may_ever_be_and"
    output.glance([{"model": name, "state": "held", "serves": "default", "drift": "steady", "why": "3 rows\x1b[2J"}])
    for part in (name, "held", "default", "steady"):
        assert part in "".join(shown.getvalue().split())
    assert "\x1b" not in shown.getvalue()
