"""`leakage audit`, `leakage replay`, `leakage latency`: what a model could not have known yet."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tiltyard import clock
from tiltyard import spec as specs
from tiltyard.cli import options
from tiltyard.cli.options import Json, MeasuredAsOf
from tiltyard.cli.output import caution, emit, out, plain, progress, say, table
from tiltyard.errors import BadInput
from tiltyard.settings import Settings

if TYPE_CHECKING:
    from tiltyard.leak.audit import Audit

PANEL = "Leakage"

commands = typer.Typer()
leakage = typer.Typer(help="Leakage: what a model could not have known yet.", no_args_is_help=True)
commands.add_typer(
    leakage,
    name="leakage",
    rich_help_panel=PANEL,
    epilog="Example: tiltyard leakage audit frame.parquet --label churned --prediction-time at --entity id",
)


@leakage.command(
    "audit", epilog="Example: tiltyard leakage audit frame.parquet --label churned --prediction-time at --entity id"
)
def audit(
    frame: Annotated[Path, typer.Argument(help="Anybody's table: Parquet or CSV.", metavar="FRAME")],
    label: Annotated[str, typer.Option(help="Column with the outcome: two values, or a number.", metavar="COL")],
    prediction_time: Annotated[str, typer.Option(help="Column: the moment a row speaks for.", metavar="COL")],
    entity: Annotated[str | None, typer.Option(help="Column: whom a row is about.", metavar="COL")] = None,
    label_time: Annotated[
        str | None, typer.Option(help="Column: when the outcome happened, or was known.", metavar="COL")
    ] = None,
    available_at: Annotated[
        list[str] | None,
        typer.Option(
            help="FEATURE=COL: the column that says since when a feature's value was known; COL alone, of every "
            "feature. Repeat it for several.",
            metavar="FEATURE=COL",
        ),
    ] = None,
    planned: Annotated[
        list[str] | None,
        typer.Option(
            help="Column that is known ahead, like a due date: nothing is held against it. Repeat it for several.",
            metavar="COL",
        ),
    ] = None,
    ignore: Annotated[
        list[str] | None, typer.Option(help="Column that is not to be judged. Repeat it for several.", metavar="COL")
    ] = None,
    history: Annotated[
        Path | None, typer.Option(help="A log of events or versions of the same entities.", metavar="FILE")
    ] = None,
    as_of_column: Annotated[
        str | None, typer.Option(help="Column of the log: since when its row was known.", metavar="COL")
    ] = None,
    report: Annotated[
        Path | None, typer.Option(help="The HTML page. Default: FRAME.leakage.html, here.", metavar="FILE.html")
    ] = None,
    strict: Annotated[bool, typer.Option("--strict", help="End with exit code 1 for a warning, too.")] = False,
    as_json: Json = False,
) -> None:
    """Find what a table tells that could not have been known yet. Exit 1 when it does, or when nobody could tell.

    A warning ends with 0, since a person has to look at it; with --strict it ends with 1.
    """
    from tiltyard.leak import audit as auditor
    from tiltyard.leak import page
    from tiltyard.leak.roles import COMMAND, parse_available_at

    target = report or Path(f"{frame.stem}.leakage.html")
    page.check(target, [frame, *([history] if history else [])])
    with progress(as_json) as step:
        result = auditor.audit(
            frame,
            label=label,
            prediction_time=prediction_time,
            entity=entity,
            label_time=label_time,
            available_at=parse_available_at(available_at or ()),
            planned=planned or (),
            ignore=ignore or (),
            history=history,
            history_as_of=as_of_column,
            progress=step,
            threads=Settings().threads,
            words=COMMAND,
        )
    drawn = page.write(result, target)
    emit(result.document(drawn).to_json(), as_json, lambda: _print_audit(result, drawn, strict))
    if result.verdict in ("fail", "untestable") or (strict and result.verdict == "warn"):
        raise typer.Exit(1)


def _print_audit(result: "Audit", drawn: Path | None, strict: bool) -> None:
    """The verdict, a line per suspicion, and where the rest is."""
    from tiltyard.leak.audit import UNTESTED_LINES

    colour = {"pass": "green", "warn": "yellow"}.get(result.verdict, "bold red")
    out.print(f"[{colour}]{result.verdict}[/] {plain(result.reason)}", soft_wrap=True)
    if result.suspicions:
        _print_suspicions(result)
    for note in result.notes:
        out.print(f"[dim]note[/] {plain(note)}", soft_wrap=True)
    for gap in result.untested[:UNTESTED_LINES]:
        out.print(f"[dim]untested[/] {plain(str(gap))}", soft_wrap=True)
    if len(result.untested) > UNTESTED_LINES:
        out.print(f"[dim]untested[/] … and {len(result.untested) - UNTESTED_LINES} more, in the report")
    looked_at = f"The page to look at: {plain(str(drawn))}" if drawn else "Its page could not be drawn."
    out.print(f"{result.size}. {looked_at}")
    if result.verdict == "warn":
        end = "exit 1, by --strict" if strict else "exit 0; --strict makes this 1"
        out.print(f"[yellow]Only warnings: {end}.[/]")


def _print_suspicions(result: "Audit") -> None:
    """A table of what is held against the columns, and under it a sentence of evidence for each."""
    from rich.table import Table

    grid = Table(box=None, header_style="bold", show_edge=False)
    for title in ("", "feature", "kind", "effect", "interval"):
        grid.add_column(title, no_wrap=title != "feature", overflow="fold")
    for suspicion in result.suspicions:
        between = f"{suspicion.interval[0]:.3g} – {suspicion.interval[1]:.3g}" if suspicion.interval else "exact"
        grid.add_row(suspicion.severity, plain(suspicion.feature), suspicion.kind, f"{suspicion.effect:.3g}", between)
    out.print(grid)
    for suspicion in result.suspicions:
        out.print(f"[bold]{plain(suspicion.feature)}[/]: {plain(suspicion.evidence)}", soft_wrap=True)


@leakage.command("replay", epilog="Example: tiltyard leakage replay --model churn --from 2025-05-29 --to 2025-05-31")
def replay(
    model: Annotated[str, typer.Option("--model", metavar="MODEL", help="Name of a model: a folder under models/.")],
    first: Annotated[str, typer.Option("--from", metavar="DATE", help="as_of of the first night.")],
    last: Annotated[str, typer.Option("--to", metavar="DATE", help="as_of of the last night.")],
    snapshot: Annotated[
        int | None,
        typer.Option("--snapshot", metavar="N", help="The lake's version to compare with; default: in service."),
    ] = None,
    limit: Annotated[
        float | None, typer.Option("--limit", metavar="SHARE", help="Rows that may have changed; default: the spec's.")
    ] = None,
    report: Annotated[
        Path | None, typer.Option("--report", metavar="FILE.html", help="Write a page to look at.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Run the millisecond test: compare what predictions were made from with what the lake says of it today.

    Exit 1 when the past was written over, or when nobody could tell.
    """
    from tiltyard import rails
    from tiltyard.leak import page
    from tiltyard.train import replay as replaying
    from tiltyard.train import replay_document, replay_page

    spec = options.spec(model)
    if report:
        page.check(report)
    ranges = [(clock.parse_as_of(first), clock.parse_as_of(last))]
    with rails.opened() as opened:
        result = replaying.replay_nights(opened, spec, ranges, at=snapshot, limit=limit)
    if report and replay_page.write(result, report) is None:
        caution(f"{report} could not be drawn; what follows is all there is.")
    emit(replay_document.ReplayDocument.of(result), as_json, lambda: say(replay_page.lines(result)))
    if result.verdict in ("fail", "untestable"):
        raise typer.Exit(1)


@leakage.command("latency", epilog="Example: tiltyard leakage latency --model churn")
def latency(
    model: Annotated[str | None, typer.Option("--model", help="Only the tables that this model stands on.")] = None,
    source: Annotated[str | None, typer.Option("--source", help="Only the tables of this source.")] = None,
    nights: Annotated[int, typer.Option(min=1, max=366, help="Nights that the embargo is learned from.")] = 28,
    as_of: MeasuredAsOf = None,
    as_json: Json = False,
) -> None:
    """Show how late rows really are: promised, claimed, observed, and the embargo that follows. Draws a plot."""
    from tiltyard import rails
    from tiltyard.edge import describe
    from tiltyard.prepare import embargo

    if model and source:
        raise BadInput("Give --model or --source, not both; a model's tables include its source's.")
    settings = Settings()
    spec = specs.find(settings.models, model) if model else None
    with rails.opened(settings) as opened:
        result = embargo.look(opened, model=spec, source=source, as_of=options.asked_night(as_of), nights=nights)

    def show() -> None:
        table(describe.latencies(result.tables))
        out.print(f"plot: {result.plot}")

    emit(result, as_json, show)
