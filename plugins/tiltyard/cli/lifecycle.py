"""`up`, `start` and `down`: everything started, with data and history or as it is; everything stopped. `remove`: a
model or a source taken away."""

import sys
from typing import Annotated

import typer

from tiltyard import clock, private
from tiltyard.cli import options
from tiltyard.cli.options import Json
from tiltyard.cli.output import caution, emit, failed, out, print_error, progress, say
from tiltyard.errors import BadInput, CheckFailed
from tiltyard.settings import Settings

PANEL = "Start and stop"
commands = typer.Typer()


@commands.command(rich_help_panel=PANEL, epilog="Example: tiltyard up --data simulated")
def up(
    name: Annotated[
        str,
        typer.Option(
            "--data",
            metavar="NAME",
            help="A data set, like incident or simulated, or `all` of them beside each other. A wrong name is answered "
            "with the right ones.",
        ),
    ] = "incident",
    as_json: Json = False,
) -> None:
    """Fetch data, hindcast a history, start Airflow, run the last three nights in it. Safe to repeat.

    A training that a check has stopped is an outcome, which is named with its reason: everything runs (exit 0). A stage
    that failed is something to mend (exit 1).
    """
    from tiltyard.edge import quickstart
    from tiltyard.rewind import hindcast

    _tighten(Settings())
    with progress(as_json) as step:
        result = quickstart.up(Settings(), name, step, by=options.user())
    emit(result, as_json, lambda: say(quickstart.summary(result)))
    for sentence in hindcast.stops(result.ended_early):
        caution(sentence)
    if failures := hindcast.complaint(hindcast.failures(result.ended_early)):
        failed(failures)


@commands.command(rich_help_panel=PANEL, epilog="Example: tiltyard start --night 2016-05-02")
def start(
    night: Annotated[
        list[str] | None,
        typer.Option("--night", metavar="DATE", help="A night to let run in Airflow, UTC; may be given several times."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Start Airflow for the sources and models that are there. Fetches nothing, plays no past. Safe to repeat.

    Where all data is of the past no night starts by itself: name those that are to run. What of the checkout is refused
    is named, and everything else runs.
    """
    from tiltyard import rails
    from tiltyard.cli import landed
    from tiltyard.edge import starting

    settings, nights = Settings(), sorted({clock.parse_night(text) for text in night or ()})
    _tighten(settings)
    if nights:
        with rails.opened(settings) as opened:
            landed.require(opened, settings.sources)
            landed.require_possible(opened, settings.sources, *nights)
    with progress(as_json) as step:
        result = starting.start(settings, nights, step, caution, by=options.user())
    emit(result, as_json, lambda: say(starting.summary(result)))
    for text in result.refused:
        print_error(str(text))


def _tighten(settings: Settings) -> None:
    """Of a home that an older version made: its owner's alone from now on, said once."""
    if sentence := private.told(settings.home, settings.landing):
        caution(sentence)


@commands.command(rich_help_panel=PANEL, epilog="Example: tiltyard down")
def down(as_json: Json = False) -> None:
    """Stop Airflow and the embedded PostgreSQL; nothing committed is lost."""
    from tiltyard.edge import services

    with progress(as_json) as step:
        result = services.stop(Settings(), progress=step)
    emit(result, as_json, lambda: out.print(f"stopped: {', '.join(result.stopped) or 'nothing was running'}"))


@commands.command(rich_help_panel=PANEL, epilog="Example: tiltyard remove sla_breach --dry-run")
def remove(
    name: Annotated[str, typer.Argument(help="Name of a model or of a source.", metavar="MODEL|SOURCE")],
    kind: Annotated[
        str | None, typer.Option(metavar="model|source", help="Which it is, where there are both of that name.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would go, path by path.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    as_json: Json = False,
) -> None:
    """Take a model or a source away: its files in the checkout, tables, deliveries, online features, what is served.

    What another model or source reads stays, and is named with its reader; a source that a model reads is not removed
    (exit 1), and nothing is while a legal hold stands. What the ledger says of it stays. Safe to repeat, also where it
    was killed in the middle.
    """
    from tiltyard import rails
    from tiltyard.edge import describe_removal
    from tiltyard.upkeep import removing

    chosen = removing.kind(kind)
    with rails.opened(Settings()) as opened:
        found = removing.plan(opened, name, chosen)
        if found.blocked:
            print_error(f"{name} cannot be removed: {' '.join(found.blocked)}")
        if found.blocked or dry_run:
            emit(found, as_json, lambda: say(describe_removal.text(found)))
            raise typer.Exit(CheckFailed.exit_code if found.blocked else 0)
        if not yes and not found.is_empty:
            if as_json or not sys.stdin.isatty():
                raise BadInput(
                    f"Nothing is removed without a word: look with --dry-run, and say --yes to remove {name}."
                )
            say(describe_removal.text(found))
            typer.confirm(f"Remove the {found.kind} {name}?", abort=True)
        result = removing.remove(opened, name, found.kind, by=options.user(), now=clock.now())
    emit(result, as_json, lambda: say(describe_removal.text(result)))
