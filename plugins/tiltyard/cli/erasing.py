"""`erase` and `subject`: that a person is forgotten, and what is held about one."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tiltyard.cli import options
from tiltyard.cli.options import Json
from tiltyard.cli.output import caution, emit, failed, progress, say
from tiltyard.errors import BadInput
from tiltyard.words import counted

if TYPE_CHECKING:
    from tiltyard.records import Receipt, Subject
    from tiltyard.upkeep.erasing.erase import Erased

PANEL = "A person's right"
commands = typer.Typer()

Entity = Annotated[
    str | None,
    typer.Option(
        "--entity", help="Whom you mean, as specs call it, like customer; default: the only one.", metavar="NAME"
    ),
]
SHOWN = 100
"""Rows of each part that `subject` shows."""


@commands.command(rich_help_panel=PANEL, epilog="Example: tiltyard erase 4711 --entity customer --reason 'request 17'")
def erase(
    who: Annotated[
        str | None, typer.Argument(help="The key of who is to be erased.", metavar="WHO", show_default=False)
    ] = None,
    reason: Annotated[
        str, typer.Option(help="Why, without naming them: it is kept with your name.", metavar="TEXT")
    ] = "",
    entity: Entity = None,
    file: Annotated[
        Path | None, typer.Option("--from", help="A file with one key in each line, 1,000 at most.", metavar="FILE")
    ] = None,
    receipts: Annotated[bool, typer.Option("--receipts", help="Only show the receipts that there are.")] = False,
    as_json: Json = False,
) -> None:
    """Erase a person, or those of a file, everywhere: deliveries, lake, features, answers, frames, pages, databases.
    From then on nothing of them is taken in. It ends with a receipt once nothing is found any more, and with 1 where
    something is; called again, a killed one goes on."""
    from tiltyard import rails
    from tiltyard.settings import Settings
    from tiltyard.upkeep.erasing import erase as erasing

    if receipts:
        with rails.opened(Settings()) as opened:
            found = opened.ledger.erasures.receipts()
        emit({"receipts": found}, as_json, lambda: _show_receipts(found))
        return
    if (who is None) == (file is None):
        raise BadInput("Name one who is to be erased, or give a file of them with --from, and not both.")
    names = [str(who)] if file is None else _names(file)
    with options.opened() as opened, progress(as_json) as step:
        done = erasing.erase(opened, names, entity=entity, by=options.user(), reason=reason, step=step)
    body = {"receipt": done.receipt, "was_before": done.was_before, "unknown": len(done.unknown)}
    emit(body, as_json, lambda: _show(done))
    if done.unknown:
        caution(f"Nobody here knows {counted(len(done.unknown), 'line')} of {file}; no tombstone stands of them.")
    if not done.receipt.is_done:
        failed(
            f"It is not done: they are still in {'; '.join(done.receipt.left)}. Mend that, and call this again with "
            "the same names."
        )


@commands.command(rich_help_panel=PANEL, epilog="Example: tiltyard subject 4711 --entity customer --json")
def subject(
    who: Annotated[str, typer.Argument(help="The key of the person.", metavar="WHO")],
    entity: Entity = None,
    rows: Annotated[int, typer.Option(help="Rows of each part that are shown.", min=0)] = SHOWN,
    as_json: Json = False,
) -> None:
    """Collect all that is held about a person, place by place, with the rows, for whoever asks for their own data."""
    from tiltyard.upkeep.erasing import subject as collecting

    with options.opened() as opened, progress(as_json) as step:
        found = collecting.subject(opened, who, entity=entity, most=rows, step=step)
    emit(found, as_json, lambda: _show_subject(found))


def _names(file: Path) -> list[str]:
    try:
        lines = file.read_text(encoding="utf-8-sig").splitlines()
    except FileNotFoundError:
        raise BadInput(f"There is no file {file}; give one with one key in each line.") from None
    except (OSError, UnicodeError) as error:
        raise BadInput(f"{file} cannot be read ({error}); give a text in UTF-8 with one key in each line.") from None
    return [line.strip() for line in lines if line.strip()]


def _show(done: "Erased") -> None:
    if done.was_before:
        say("They were erased before, and nothing of them has come since:")
    _show_receipt(done.receipt)


def _show_receipts(receipts: "Sequence[Receipt]") -> None:
    for receipt in receipts:
        _show_receipt(receipt)
    if not receipts:
        say("Nobody was erased here.")


def _show_receipt(receipt: "Receipt") -> None:
    state = "done" if receipt.is_done else "not done"
    who = f"{counted(len(receipt.hashes), receipt.entity)}, {receipt.hashes[0][:16]}…"
    say(f"receipt {receipt.erasure}, {state}: {who}")
    say(f"  asked by {receipt.requested_by} on {receipt.begun_at:%Y-%m-%d %H:%M} UTC: {receipt.reason}")
    for place, parts in receipt.counts.items():
        say(f"  {place:<12} {sum(parts.values()):,}: {', '.join(f'{part} {count:,}' for part, count in parts.items())}")
    for one in receipt.learned:
        say(f"  learned      {one.model} v{one.version}, from frame {one.frame[:12]}; {one.follows}")
    for sentence in receipt.notes:
        say(f"  note         {sentence}.")
    say(f"  ended on {receipt.ended_at:%Y-%m-%d %H:%M} UTC, attempt {receipt.attempt}, {receipt.seconds:g} s")


def _show_subject(found: "Subject") -> None:
    say(f"{found.entity} {found.value}, as of {found.at:%Y-%m-%d %H:%M} UTC")
    for place in found.places:
        for part in place.parts:
            say(f"  {place.place:<12} {part.part}: {part.count:,}")
    for one in found.learned:
        say(f"  learned      {one.model} v{one.version}")
    for sentence in found.notes:
        say(f"  note         {sentence}.")
    say("The rows are in --json.")
