"""`verify`: whether what was decided is still what was put down."""

from typing import TYPE_CHECKING, Annotated

import typer

from tiltyard.cli import options
from tiltyard.cli.options import Json
from tiltyard.cli.output import caution, emit, print_error, say
from tiltyard.errors import BadInput, CheckFailed
from tiltyard.words import counted

if TYPE_CHECKING:
    from tiltyard.chain import ChainState

PANEL = "All models together"
commands = typer.Typer()


@commands.command(rich_help_panel=PANEL, epilog="Example: tiltyard verify --head 1042:9f86d081884c7d65…")
def verify(
    head: Annotated[
        str | None, typer.Option(help="What an earlier verify printed as head, kept elsewhere since.", metavar="HEAD")
    ] = None,
    accept: Annotated[
        bool, typer.Option("--accept", help="Take what is not as it was put down as it is; needs --reason.")
    ] = False,
    reason: Annotated[str | None, typer.Option(help="Why; it is kept with your name.", metavar="TEXT")] = None,
    as_json: Json = False,
) -> None:
    """Hold versions, decisions, promotions, watches, operations and explanations in the ledger against the chain that
    was written with them. Exit 1 where one was changed, is gone or was put in by another way."""
    from tiltyard.ledger import Ledger
    from tiltyard.settings import Settings

    if accept and not (reason or "").strip():
        raise BadInput("Say why with --reason; it is kept with your name.")
    ledger = Ledger(Settings())
    try:
        state = ledger.verify(head)
        if accept and state.faults:
            count = ledger.accept_as_found(options.user(), str(reason).strip())
            state = ledger.verify(head)
            caution(f"{counted(count, 'row')} accepted as found; what was accepted is kept as an event.")
    finally:
        ledger.close()
    emit(state, as_json, lambda: _show(state))
    if state.faults:
        for fault in state.faults:
            print_error(f"{fault}.")
        raise typer.Exit(CheckFailed.exit_code)


def _show(state: "ChainState") -> None:
    say(f"{counted(state.rows, 'row')} held against {state.entries:,} of the chain")
    if state.begun_at:
        say(f"begun {state.begun_at:%Y-%m-%d %H:%M} UTC; {counted(state.adopted, 'row')} was there before")
    if state.accepted:
        say(f"{counted(state.accepted, 'row')} accepted by a person as found")
    if state.head:
        say(f"head {state.head}")
        say("Keep the head elsewhere: whoever writes the whole chain anew is found by it, with --head.")
    if state.faults:
        say(
            "Restore the ledger from a backup. What should stay as it is now is accepted with "
            "tiltyard verify --accept --reason TEXT; nothing of a model that is named is promoted before."
        )
