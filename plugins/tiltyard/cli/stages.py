"""`train`, `shadow`, `deliver`, `promote`, `drift`: one stage of one model for one night."""

from collections.abc import Callable
from datetime import datetime
from typing import TYPE_CHECKING, Annotated

import typer

from tiltyard import clock
from tiltyard.cli import options
from tiltyard.cli.options import AsOf, HourAsOf, Json, Model
from tiltyard.cli.output import caution, emit, failed, say
from tiltyard.spec import Spec, find
from tiltyard.stages import StageName

if TYPE_CHECKING:
    from tiltyard.rails import Rails

PANEL = "One stage of one model"
commands = typer.Typer()


@commands.command(
    rich_help_panel=PANEL, epilog="Example: tiltyard train sla_breach --as-of 2016-04-02 --reason 'new feature'"
)
def train(
    model: Model,
    as_of: AsOf = None,
    reason: Annotated[list[str] | None, typer.Option("--reason", help="Why; kept with the version.")] = None,
    trials: Annotated[int | None, typer.Option(min=1, max=500, help="Tuning trials; default: the spec's.")] = None,
    as_json: Json = False,
) -> None:
    """Train a champion-to-be and its light twin on matured labels; register it as a challenger. Where the rows cannot
    carry a model no version is made, and the reason is told (exit 1)."""
    from tiltyard.cli import landed
    from tiltyard.train import training

    night, reasons = options.night(as_of), tuple(reason or ("asked by hand",))
    with options.opened() as opened:
        spec = find(opened.settings.models, model)
        landed.require_possible(opened, [spec.source], night)
        opened.ledger.require_unplayed([model])
        result = training.train(opened, spec, night, requested_by=options.user(), reasons=reasons, trials=trials)
    emit(result, as_json)
    if not result.trained:
        failed(f"{model}: no version was trained as of {result.night}: {result.reason}.")


@commands.command(rich_help_panel=PANEL, epilog="Example: tiltyard shadow sla_breach --as-of 2016-04-10")
def shadow(model: Model, as_of: HourAsOf = None, as_json: Json = False) -> None:
    """Score the night with champion and challengers; evaluate both on matured cohorts. Of an hour of an hourly model
    the rows that have no answer are scored, and nothing is evaluated. Where the spec says `deliver`, the answers are
    brought there."""
    from tiltyard.answered import delivery
    from tiltyard.judge import shadow as stage

    if clock.is_hour(end := options.hour(as_of)):
        _answer_hour(model, end, as_json)
        return

    def scored_and_delivered(rails: "Rails", spec: Spec, night: datetime) -> object:
        delivery.owe(rails, spec, [night.date()])
        summary = stage.shadow_night(rails, spec, night)
        sent = delivery.deliver(rails, spec, scored=[night.date()])
        if sent and sent.reason:
            caution(f"{spec.name} of {night.date()} is not delivered: {sent.reason}")
        return summary

    _stage("shadow", model, as_of, as_json, scored_and_delivered)


@commands.command(rich_help_panel=PANEL, epilog="Example: tiltyard deliver sla_breach --night 2016-05-02")
def deliver(
    model: Model,
    night: Annotated[
        str | None,
        typer.Option("--night", "--as-of", metavar="DATE", help="Bring this night there, too, once more, UTC."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Bring the nights that are owed to where the spec's `deliver` says, as the shadow stage of every night does. Twice
    is once. What could not be delivered is named, and owed still (exit 1)."""
    from tiltyard import rails
    from tiltyard.answered import delivery
    from tiltyard.edge import describe

    spec, asked = options.spec(model), options.asked_night(night)
    with rails.opened() as opened:
        result = delivery.again(opened, spec, asked.date() if asked else None)
    emit(result, as_json, lambda: say(f"{model} {describe.delivery(result)}"))
    if result.reason:
        failed(f"{model} is not delivered: {result.reason}")


@commands.command(rich_help_panel=PANEL, epilog="Example: tiltyard promote sla_breach --as-of 2016-05-02")
def promote(model: Model, as_of: AsOf = None, as_json: Json = False) -> None:
    """Let the gate decide on matured evidence. Tier 1 is decided here and approved in Airflow."""
    from tiltyard.judge import promotion as stage

    _stage("promotion", model, as_of, as_json, stage.judge_night)


@commands.command(rich_help_panel=PANEL, epilog="Example: tiltyard drift sla_breach --as-of 2016-05-02")
def drift(model: Model, as_of: AsOf = None, as_json: Json = False) -> None:
    """Compare the night's window with the training reference, and keep the finding for the governor."""
    from tiltyard.govern import drift as stage
    from tiltyard.govern import page

    def measured_and_drawn(rails: "Rails", spec: Spec, night: datetime) -> object:
        summary = stage.measure_night(rails, spec, night)
        if summary.report:
            page.draw(rails, spec, night.date())
        return summary

    _stage("drift", model, as_of, as_json, measured_and_drawn)


def _answer_hour(model: str, hour: datetime, as_json: bool) -> None:
    from tiltyard.edge import hours

    with options.opened() as opened:
        spec = find(opened.settings.models, model)
        opened.ledger.require_unplayed([model])
        hours.require_published(opened, spec, hour)
        [answered] = hours.answer(opened, spec, [hour])
    emit(answered, as_json)


def _stage(
    name: StageName,
    model: str,
    as_of: str | None,
    as_json: bool,
    stage: Callable[["Rails", Spec, datetime], object],
) -> None:
    from tiltyard.edge import due

    night = options.night(as_of)
    with options.opened() as opened:
        spec = find(opened.settings.models, model)
        opened.publication()  # says what comes first where nothing is there yet
        opened.ledger.require_unplayed([model])
        due.require_reached(opened, name, spec, night)
        result = stage(opened, spec, night)
    emit(result, as_json)
