"""`data fetch`, `data cut`, `ingest`, `features`: what the sources deliver becomes a published night."""

from datetime import datetime
from pathlib import Path
from typing import Annotated

import typer

from tiltyard import clock
from tiltyard.cli import options
from tiltyard.cli.options import AsOf, HourAsOf, Json
from tiltyard.cli.output import caution, emit, failed, print_error, progress, say
from tiltyard.errors import BadInput
from tiltyard.settings import Settings
from tiltyard.words import counted, listed

PANEL = "Bring data in"
Source = Annotated[
    str | None,
    typer.Option("--source", help="One source, like incident. Default: all that are active.", metavar="NAME"),
]
commands = typer.Typer()
data = typer.Typer(help="Fetch the data that the models feed on.", no_args_is_help=True)
commands.add_typer(data, name="data", rich_help_panel=PANEL, epilog="Example: tiltyard data fetch incident")


@data.command("fetch", epilog="Example: tiltyard data fetch incident")
def fetch(
    name: Annotated[
        str,
        typer.Argument(
            help="A data set, like incident or simulated. A wrong name is answered with the right ones.", metavar="NAME"
        ),
    ],
    cancel_trigger: Annotated[
        bool,
        typer.Option(
            "--cancel-trigger", help="For simulated: the CRM blanks the last log-in of whoever cancels, in place."
        ),
    ] = False,
    as_json: Json = False,
) -> None:
    """Download a data set (or make the simulated one), check its content, lay it out as daily deliveries."""
    from tiltyard.prepare import datasets

    with progress(as_json) as step:
        summary = datasets.fetch(Settings(), name, progress=step, cancel_trigger=cancel_trigger)
    emit(summary.to_json(), as_json)


@data.command("cut", epilog="Example: tiltyard data cut clinic appointments.csv")
def cut(
    source: Annotated[str, typer.Argument(help="A source with a contract.", metavar="SOURCE")],
    file: Annotated[Path, typer.Argument(help="An export that fits it: CSV, JSON lines or Parquet.", metavar="FILE")],
    table: Annotated[str | None, typer.Option(help="Table of the source; default: its only one.")] = None,
    available_at: Annotated[
        str | None,
        typer.Option(help="Column that tells when a row was known. Default: when it happened.", metavar="COL"),
    ] = None,
    written_after: Annotated[
        str | None,
        typer.Option(
            help="How long after its row what is written later is known, where no column tells when. Default: as the "
            "contract says, or 30d."
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Lay a one-off export into the landing zone: a file a day, what is written later on the day on which it was."""
    from tiltyard.scaffold import cutting

    after = options.duration("--written-after", written_after) if written_after else None
    with progress(as_json) as step:
        summary = cutting.cut(
            Settings(), source, file, table=table, known=available_at, written_after=after, progress=step
        )
    emit(summary.to_json(), as_json)
    if summary.caution:
        caution(summary.caution)


@commands.command(rich_help_panel=PANEL, epilog="Example: tiltyard ingest --as-of 2016-04-02")
def ingest(as_of: AsOf = None, source: Source = None, as_json: Json = False) -> None:
    """Fetch and land what became available until the night: append-only, exactly once; bad files go to quarantine, and
    a place that is away is told (exit 1)."""
    from tiltyard.cli import landed
    from tiltyard.prepare import features as stage

    settings, night = Settings(), options.night(as_of)
    chosen = _chosen(settings, source)
    with options.opened(sources=chosen) as opened:
        chosen = landed.able(opened, chosen, night)
        result = stage.ingest(opened, night, chosen)
    emit(result, as_json)
    for name, summary in result.items():
        if not as_json and not summary.files and not summary.quarantined:
            where = landed.places(settings, [name])
            say(f"{name}: found nothing new that was due at {night:%Y-%m-%d %H:%M} UTC in {where}")
    for name, summary in result.items():
        for note in summary.notes:
            print_error(f"{name}: {note}.")
    away = [sentence for summary in result.values() for sentence in summary.away]
    for sentence in away:
        print_error(f"{sentence.rstrip('.')}; run this again when it does.")
    aside = [table.unusable for summary in result.values() for table in summary.fetched if table.unusable]
    for sentence in aside:
        print_error(f"{sentence}.")
    refused = [f"{file.file}: {file.reason}" for summary in result.values() for file in summary.quarantined]
    if refused:
        failed(
            f"{counted(len(refused), 'file')} went to quarantine, {listed(refused, '; ')}. Mend each in "
            f"{settings.quarantine} and run tiltyard replace SOURCE FILE, or mend the contract; then run this again."
        )
    if away or aside:
        raise typer.Exit(1)


@commands.command(
    rich_help_panel=PANEL,
    epilog="Example: tiltyard replace payment ~/mended/2025-05-29.csv --reason 'the export was cut off'",
)
def replace(
    source: Annotated[str, typer.Argument(help="The source.", metavar="SOURCE")],
    file: Annotated[Path, typer.Argument(help="The mended delivery, called like the one it replaces.", metavar="FILE")],
    reason: Annotated[str, typer.Option(help="Why; kept with your name.")],
    table: Annotated[
        str | None, typer.Option(help="Table of the source, where its folder does not tell.", metavar="NAME")
    ] = None,
    as_json: Json = False,
) -> None:
    """Take a mended delivery in place of the one of its name, whether that lies in quarantine or has landed. Its rows
    are exchanged at once, what is made of them is made anew by the next night, and the file that was wrong is kept."""
    from tiltyard import rails
    from tiltyard.prepare import replacing
    from tiltyard.upkeep import holds

    with rails.opened(Settings()) as opened:
        standing = holds.sentences(opened)
        result = replacing.replace(opened, source, file, table=table, by=options.user(), reason=reason, holds=standing)
    emit(result, as_json, lambda: say(replacing.summary(result)))


@commands.command(
    rich_help_panel=PANEL,
    epilog="Example: tiltyard withdraw payment 2025-05-29.csv --reason 'it was another customer'",
)
def withdraw(
    source: Annotated[str, typer.Argument(help="The source.", metavar="SOURCE")],
    file: Annotated[str, typer.Argument(help="Name of the delivery that has landed.", metavar="FILE")],
    reason: Annotated[str, typer.Option(help="Why; kept with your name.")],
    table: Annotated[
        str | None, typer.Option(help="Table of the source, where it has several.", metavar="NAME")
    ] = None,
    as_json: Json = False,
) -> None:
    """Take back a delivery that should not have come: its rows count as never known, what is made of them is made anew
    by the next night, and the answers that may have used them are counted. The file is kept in quarantine, and its
    bytes are not taken again."""
    from tiltyard import rails
    from tiltyard.upkeep import deliveries, holds

    with rails.opened(Settings()) as opened:
        standing = holds.sentences(opened)
        result = deliveries.withdraw(
            opened, source, file, table=table, by=options.user(), reason=reason, holds=standing
        )
    emit(result, as_json, lambda: say(deliveries.summary(result)))


@commands.command(rich_help_panel=PANEL, epilog="Example: tiltyard features --as-of 2016-04-02")
def features(
    as_of: HourAsOf = None,
    source: Source = None,
    rebuild: Annotated[
        list[str] | None,
        typer.Option("--rebuild", help="Make a table anew with all its rows; may be given again.", metavar="TABLE"),
    ] = None,
    as_json: Json = False,
) -> None:
    """Ingest, build with dbt, check, publish, source by source. A table whose SQL or columns have changed is made anew
    by itself. A table that is not good stays as it was, and is named (exit 1). At an hour that is done for the sources
    with hourly models, and settles no night."""
    from tiltyard.cli import landed
    from tiltyard.edge import describe_nights
    from tiltyard.online import fill
    from tiltyard.prepare import features as stage

    night, chosen = options.hour(as_of), _chosen(Settings(), source)
    if clock.is_hour(night):
        if rebuild:
            raise BadInput("--rebuild is a night's: leave it out, or name a night.")
        _features_at(night, source, as_json)
        return
    with options.opened(sources=chosen) as opened:
        stage.require_tables(opened.settings, rebuild or ())
        chosen = landed.able(opened, chosen, night)
        built = stage.build_night(opened, night, chosen, rebuild=rebuild or ())
        online_features = fill.fill_night(opened, night)
    document = built.to_json() | {"online": online_features.to_json()}
    emit(document, as_json, lambda: say(describe_nights.features(built, online_features)))
    for name, done in built.sources.items():
        if done.error:
            print_error(f"{name}: {done.error}")
        elif done.published.unpublished:
            print_error(stage.complaint(done.published.unpublished, built.night))
    if built.unpublished:
        raise typer.Exit(1)


def _features_at(hour: datetime, source: str | None, as_json: bool) -> None:
    """The features stage at an hour, of one source or of all that have hourly models."""
    from tiltyard.cli import landed
    from tiltyard.edge import describe_nights
    from tiltyard.online import fill
    from tiltyard.prepare import hourly

    with options.opened(sources=_chosen(Settings(), source)) as opened:
        chosen = (source,) if source else tuple(hourly.sources(opened.settings))
        if not chosen:
            raise BadInput(f"No active model is hourly; name a night, like --as-of {clock.night_of(hour)}.")
        chosen = landed.able(opened, chosen, hour)
        done = {name: hourly.build_hour(opened, name, hour) for name in chosen}
        filled = fill.fill_night(opened, hour)
    document = {"hour": hour.isoformat(), "sources": {name: each.to_json() for name, each in done.items()}}
    emit(document | {"online": filled.to_json()}, as_json, lambda: say(describe_nights.hour(hour, done, filled)))
    complaints = [each.complaint for each in done.values() if each.unpublished]
    for sentence in complaints:
        print_error(sentence)
    if complaints:
        raise typer.Exit(1)


def _chosen(settings: Settings, source: str | None) -> tuple[str, ...]:
    """The source that was named, or all active ones. Raises BadInput for one that is not active."""
    if source is None:
        return settings.sources
    if source not in settings.sources:
        raise BadInput(f"'{source}' is no active source; they are: {', '.join(settings.sources)} (TILTYARD_SOURCES).")
    return (source,)
