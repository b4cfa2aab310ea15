"""`costs`, `worth`: what nights have used and cost, and which models are worth it."""

from typing import TYPE_CHECKING, Annotated

import typer

from tiltyard import clock
from tiltyard.cli import options
from tiltyard.cli.options import Json, ScoredAsOf
from tiltyard.cli.output import caution, emit, progress, say, table

if TYPE_CHECKING:
    from tiltyard.edge.cost_page import CostSums

PANEL = "All models together"
commands = typer.Typer()


@commands.command(rich_help_panel=PANEL, epilog="Example: tiltyard costs --by owner")
def costs(
    by: Annotated[str, typer.Option(metavar="model|owner|tier|source|stage", help="What is added up.")] = "model",
    first: Annotated[str | None, typer.Option("--from", metavar="DATE", help="First night; default: 30 back.")] = None,
    last: Annotated[str | None, typer.Option("--to", metavar="DATE", help="Last night; default: the newest.")] = None,
    as_json: Json = False,
) -> None:
    """Show what a night in Airflow has used, on average: CPU, memory, bytes, and money by the prices of
    models/portfolio.yaml, the dearest first."""
    from tiltyard import rails
    from tiltyard.edge import cost_page
    from tiltyard.spec import portfolio

    since, until = (clock.parse_night(text).date() if text else None for text in (first, last))
    with rails.opened() as opened:
        result = cost_page.sums(opened, portfolio(opened.settings), by, since, until)
    emit(result, as_json, lambda: _show(result))
    if not result.nights:
        caution(f"Nothing was measured from {result.first} to {result.last}; nights in Airflow are, hindcasts are not.")
    elif result.currency is None:
        caution("Nothing is priced; write prices: {cpu_hour: …, gb_hour: …, gb_month: …} in models/portfolio.yaml.")


@commands.command(rich_help_panel=PANEL, epilog="Example: tiltyard worth churn --json")
def worth(
    model: Annotated[list[str] | None, typer.Argument(help="Models; default: all.", metavar="[MODEL]...")] = None,
    as_of: ScoredAsOf = None,
    as_json: Json = False,
) -> None:
    """The retire list: keep a model, let its light twin answer alone, or retire it, by what it has earned over its safe
    default and its light twin on matured truth, less what it costs. Nothing follows from it by itself."""
    from tiltyard import rails
    from tiltyard.govern import retiring
    from tiltyard.spec import find, portfolio

    with rails.opened() as opened, progress(as_json) as step:
        chosen = [find(opened.settings.models, name) for name in model or ()] or [*portfolio(opened.settings)]
        result = retiring.look(opened, chosen, options.asked_night(as_of), step)
    rows = [
        {"model": entry.model, "advice": entry.advice, "since": entry.said_since or "–", "why": entry.reason}
        for entry in result
    ]
    emit(result, as_json, lambda: table(rows))


def _show(result: "CostSums") -> None:
    say(f"a night on average, of {result.nights} from {result.first} to {result.last}; money for a month")
    table(
        [
            {
                result.by: bill.name,
                "models": bill.models or "–",
                "CPU": f"{bill.usage.cpu_s:.2f} s",
                "shared": f"{bill.shared_cpu_s:.2f} s",
                "wall": f"{bill.usage.wall_s:.1f} s",
                "memory": f"{bill.usage.memory_bytes / 1e6:.0f} MB",
                "read": f"{bill.usage.read_bytes / 1e6:.1f} MB",
                "written": f"{bill.usage.written_bytes / 1e6:.1f} MB",
                "stored": f"{bill.stored_bytes / 1e6:.1f} MB",
                "money": "–" if bill.price is None else f"{bill.price:.2f} {result.currency}",
            }
            for bill in result.bills
        ]
    )
