"""`alerts`: who is told what, whether it was told, and whether it was worth it."""

from typing import TYPE_CHECKING, Annotated

import typer

from tiltyard import clock
from tiltyard.cli import options
from tiltyard.cli.options import Json
from tiltyard.cli.output import caution, emit, failed, say
from tiltyard.settings import Settings

if TYPE_CHECKING:
    from tiltyard.edge.told.telling import AlertList, Told

PANEL = "Portfolio"
commands = typer.Typer()
alerts = typer.Typer(help="Who is told what, by the routes of models/portfolio.yaml.", no_args_is_help=True)
commands.add_typer(alerts, name="alerts", rich_help_panel=PANEL, epilog="Example: tiltyard alerts test service-desk")


@alerts.command("list", epilog="Example: tiltyard alerts list --json")
def list_alerts(as_json: Json = False) -> None:
    """What people were told that stands or was over in the last week, and what no service took (exit 1)."""
    from tiltyard import rails
    from tiltyard.edge.told import telling

    with rails.opened() as opened:
        result = telling.listing(opened, clock.now())
    emit(result, as_json, lambda: say(_listed(result)))
    if result.unsent:
        names = sorted({entry.to for entry in result.unsent})
        failed(f"{len(result.unsent)} could not be told: {', '.join(names)}; {result.unsent[-1].error}")


@alerts.command("send", epilog="Example: tiltyard alerts send")
def send(as_json: Json = False) -> None:
    """Look at what there is to tell now and send it, as the alerts DAG does. Safe to repeat: nothing is told twice."""
    from tiltyard import rails
    from tiltyard.edge.told import telling

    with rails.opened() as opened:
        result = telling.tell(opened, clock.now())
    emit(result, as_json, lambda: say(_told(result)))
    for title in result.unrouted:
        caution(f"no route takes: {title}")
    _complain(result)


@alerts.command("test", epilog="Example: tiltyard alerts test service-desk")
def test(
    owner: Annotated[str, typer.Argument(help="The owner of a model, as its spec has it.", metavar="OWNER")],
    as_json: Json = False,
) -> None:
    """Send one message to every address that is told of an owner's models, by the routes of the checkout, whether they
    are in force already or not. What was not taken is named (exit 1)."""
    from tiltyard import rails
    from tiltyard.edge.told import telling

    with rails.opened(Settings()) as opened:
        result = telling.test(opened, owner, clock.now())
    emit(result, as_json, lambda: say(f"sent {result.sent}: {_taken(result)}"))
    _complain(result)


@alerts.command("judge", epilog="Example: tiltyard alerts judge 17 --not-needed")
def judge(
    number: Annotated[int, typer.Argument(help="Number of the page, as list shows it.", metavar="NUMBER")],
    needed: Annotated[bool, typer.Option("--needed/--not-needed", help="Whether you had to do something.")],
    as_json: Json = False,
) -> None:
    """Say whether a page was worth the interruption; their share is shown by list."""
    from tiltyard import rails

    with rails.opened() as opened:
        result = opened.ledger.outbox.judge(number, needed, options.user())
    emit(result, as_json, lambda: say(f"page {number}: {'needed' if needed else 'not needed'}, by {result.judged_by}"))


def _told(result: "Told") -> str:
    return (
        f"{result.standing} stand; {result.paged} told at once, {result.later} left for later, {result.ended} over; "
        f"{result.sent} sent"
    )


def _taken(result: "Told") -> str:
    """The addresses that took the message, by their names."""
    return ", ".join(name for name in result.to if name not in result.unsent) or "nobody took it"


def _complain(result: "Told") -> None:
    if result.unsent:
        failed(" ".join(f"{name}: {why}" for name, why in sorted(result.unsent.items())))


def _listed(result: "AlertList") -> str:
    from tiltyard.edge.told import texts

    lines = []
    for message, how in zip(result.messages, result.how, strict=True):
        over = f", over {message.ended_at:%Y-%m-%d %H:%M}" if message.ended_at else ""
        owner = f" ({message.fact.owner})" if message.fact.owner else ""
        lines.append(
            f"{message.id:>4} {message.opened_at:%Y-%m-%d %H:%M} {texts.WORDS[message.fact.kind]}: "
            f"{texts.shown(message.fact)}{owner}; {texts.how(how)}{over}"
        )
    counts = result.precision
    if counts.pages:
        said = f"{counts.needed} of {counts.judged} judged were needed" if counts.judged else "nobody has judged any"
        lines.append(f"{counts.pages} pages in 90 days; {said}")
    return "\n".join(lines) or "nothing stands, and nothing was over in the last week"
