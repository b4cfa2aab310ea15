"""`nights withdraw`: a night that should never have been is taken back."""

from typing import Annotated

import typer

from tiltyard import clock
from tiltyard.cli import options
from tiltyard.cli.options import Json
from tiltyard.cli.output import emit, say
from tiltyard.errors import BadInput
from tiltyard.settings import Settings

PANEL = "All models together"
commands = typer.Typer()
nights = typer.Typer(help="Nights that were done, and should not have been.", no_args_is_help=True)
commands.add_typer(
    nights, name="nights", rich_help_panel=PANEL,
    epilog="Example: tiltyard nights withdraw 2031-05-02 --reason 'the year was mistyped'",
)  # fmt: skip


@nights.command("withdraw", epilog="Example: tiltyard nights withdraw 2031-05-02 --reason 'the year was mistyped'")
def withdraw(
    reason: Annotated[str, typer.Option(help="Why; kept with your name.")],
    night: Annotated[str | None, typer.Argument(help="The night, UTC, like 2031-05-02.", metavar="[NIGHT]")] = None,
    first: Annotated[
        str | None,
        typer.Option("--from", help="Instead of one night all from this one on, the newest first.", metavar="NIGHT"),
    ] = None,
    source: Annotated[
        str | None, typer.Option("--source", help="Only of this source and its models.", metavar="NAME")
    ] = None,
    model: Annotated[str | None, typer.Option("--model", help="Only of this model.", metavar="NAME")] = None,
    as_json: Json = False,
) -> None:
    """Take back a night, like one of a mistyped year, and what only followed from it: what it left in the ledger and
    the lake goes, and an event says who took it back, why, and what it was. What it landed stays. A night that later
    ones stand on, that has changed a champion, or that never was, is not taken back (exit 2)."""
    from tiltyard import rails, release
    from tiltyard.upkeep import withdrawing

    if (night is None) == (first is None):
        raise BadInput("Name one night, like 2031-05-02, or with --from the first of those that go, and not both.")
    as_of = clock.parse_night(night or first or "")
    with rails.opened(release.in_force(Settings())) as opened:
        result = withdrawing.withdraw(
            opened, as_of.date(), source=source, model=model, onwards=first is not None, by=options.user(),
            reason=reason,
        )  # fmt: skip
    emit(result, as_json, lambda: say(withdrawing.summary(result)))
