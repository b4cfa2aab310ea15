"""`verify`: whether what was decided, and what lies in the lake, is still what was put down."""

from typing import TYPE_CHECKING, Annotated

import typer

from tiltyard.cli import options
from tiltyard.cli.options import Json
from tiltyard.cli.output import caution, emit, print_error, progress, say
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
    lake: Annotated[
        bool, typer.Option("--lake", help="Look at every file of the lake instead, for what has turned there.")
    ] = False,
    let_go: Annotated[
        str | None,
        typer.Option(
            "--let-go", help="With --lake: let a damaged file go with its rows; needs --reason.", metavar="FILE"
        ),
    ] = None,
    reason: Annotated[str | None, typer.Option(help="Why; it is kept with your name.", metavar="TEXT")] = None,
    as_json: Json = False,
) -> None:
    """Hold versions, decisions, promotions, watches, operations and explanations in the ledger against the chain that
    was written with them. Exit 1 where one was changed, is gone or was put in by another way, and where a promotion, a
    rollback or a person's change does not follow from what was decided.

    With --lake every file of the lake is looked at, and every one that is damaged named, with the models that may have
    used it and the ways out. Exit 1 where there is one."""
    from tiltyard.ledger import Ledger
    from tiltyard.settings import Settings

    if let_go and not lake:
        raise BadInput("--let-go is about a file of the lake: tiltyard verify --lake --let-go FILE --reason TEXT.")
    if lake:
        if accept or head:
            raise BadInput("--head and --accept are about the ledger; leave them out, or leave out --lake.")
        if let_go:
            _let_go(let_go, reason or "", as_json)
        else:
            _look(as_json)
        return
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


def _look(as_json: bool) -> None:
    from tiltyard import damage, rails
    from tiltyard.edge import describe_lake
    from tiltyard.upkeep import scrub

    with rails.opened() as opened, progress(as_json) as step:
        done = scrub.scrub_all(opened, step)
    emit(done, as_json, lambda: say(describe_lake.scrub(done)))
    if done.damaged:
        print_error(f"{counted(len(done.damaged), 'file')} of the lake damaged. {damage.WAY_OUT}")
        raise typer.Exit(CheckFailed.exit_code)


def _let_go(file: str, reason: str, as_json: bool) -> None:
    from tiltyard import rails
    from tiltyard.upkeep import holds, letting_go

    with rails.opened() as opened:
        done = letting_go.let_go(opened, file, by=options.user(), reason=reason, holds=holds.sentences(opened))
    emit(done, as_json, lambda: say(letting_go.summary(done)))


def _show(state: "ChainState") -> None:
    say(f"{counted(state.rows, 'row')} held against {state.entries:,} of the chain")
    if state.begun_at:
        say(f"begun {state.begun_at:%Y-%m-%d %H:%M} UTC; {counted(state.adopted, 'row')} was there before")
    if state.unordered:
        say(f"{counted(state.unordered, 'row')} taken out before the chain said what had ordered it")
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
