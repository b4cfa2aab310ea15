"""`costs`, `worth`: what nights have used and cost, and which models are worth it."""

from collections.abc import Sequence
from datetime import date, timedelta
from typing import TYPE_CHECKING, Annotated, get_args

import typer

from tiltyard import clock
from tiltyard.cli import options
from tiltyard.cli.options import Json, ScoredAsOf
from tiltyard.cli.output import caution, emit, progress, say, table
from tiltyard.errors import BadInput

if TYPE_CHECKING:
    from tiltyard.govern.bills import Bill

PANEL = "All models together"
NIGHTS = 30
"""Nights that are looked at, where nothing else is asked for."""
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
    from tiltyard.govern import bills
    from tiltyard.spec import load_portfolio, portfolio

    if by not in get_args(bills.By):
        raise BadInput(f"Costs are added up by {', '.join(get_args(bills.By))}, not by '{by}'.")
    with rails.opened() as opened:
        accounts = opened.ledger.accounts
        until = clock.parse_night(last).date() if last else accounts.newest() or clock.now().date()
        since = clock.parse_night(first).date() if first else until - timedelta(days=NIGHTS - 1)
        if since > until:
            raise BadInput(f"The first night, {since}, comes after the last, {until}.")
        prices = load_portfolio(opened.settings.models).prices
        nights = accounts.nights(since, until)
        result = bills.bills(
            accounts.costs(since, until), accounts.stored(), nights, portfolio(opened.settings),
            by, prices,  # type: ignore[arg-type]  # it is one of them
        )  # fmt: skip
    document = {"from": since, "to": until, "nights": nights, "by": by, "bills": result,
                "currency": prices.currency if prices else None}  # fmt: skip
    emit(document, as_json, lambda: _show(result, by, (since, until), nights, prices.currency if prices else None))
    if not nights:
        caution(f"Nothing was measured from {since} to {until}; nights in Airflow are, hindcasts are not.")
    elif prices is None:
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


def _show(result: "Sequence[Bill]", by: str, between: tuple[date, date], nights: int, currency: str | None) -> None:
    say(f"a night on average, of {nights} from {between[0]} to {between[1]}; money for a month")
    table(
        [
            {
                by: bill.name,
                "models": bill.models or "–",
                "CPU": f"{bill.usage.cpu_s:.2f} s",
                "shared": f"{bill.shared_cpu_s:.2f} s",
                "wall": f"{bill.usage.wall_s:.1f} s",
                "memory": f"{bill.usage.memory_bytes / 1e6:.0f} MB",
                "read": f"{bill.usage.read_bytes / 1e6:.1f} MB",
                "written": f"{bill.usage.written_bytes / 1e6:.1f} MB",
                "stored": f"{bill.stored_bytes / 1e6:.1f} MB",
                "money": "–" if bill.price is None else f"{bill.price:.2f} {currency}",
            }
            for bill in result
        ]
    )
