"""`hindcast`: past nights once more, as they were or under other policies."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from tiltyard import clock
from tiltyard import spec as specs
from tiltyard.cli import options
from tiltyard.cli.options import Json
from tiltyard.cli.output import emit, failed, progress, say, table
from tiltyard.errors import BadInput
from tiltyard.portfolio_rules import load_portfolio
from tiltyard.settings import Settings

if TYPE_CHECKING:
    from tiltyard.rails import Rails

PANEL = "Past nights"
commands = typer.Typer()


@commands.command(
    rich_help_panel=PANEL,
    epilog="Example: tiltyard hindcast --model sla_breach --from 2016-03-25 --to 2016-05-20\n\n"
    "tiltyard hindcast --from 2016-04-01 --to 2016-05-30 --policy current --policy cautious.yaml",
)
def hindcast(
    first: Annotated[str, typer.Option("--from", metavar="DATE", help="as_of of the first night.")],
    last: Annotated[str, typer.Option("--to", metavar="DATE", help="as_of of the last night.")],
    model: Annotated[
        list[str] | None, typer.Option("--model", help="One or more models; default: the portfolio.")
    ] = None,
    policy: Annotated[
        list[str] | None,
        typer.Option(
            "--policy",
            metavar="FILE.yaml",
            help="Try this policy on these nights and write nothing into lake or ledger; repeat it to compare. "
            "'current' stands for the specs as they are.",
        ),
    ] = None,
    jobs: Annotated[
        int | None,
        typer.Option(
            min=1, max=64, help="Processes that the models are spread over; default: one per core, with --policy 2."
        ),
    ] = None,
    plots: Annotated[
        Path | None, typer.Option("--plots", metavar="FOLDER", help="With --policy: where pictures go.")
    ] = None,
    approve: Annotated[str, typer.Option(help="What approvals are assumed to say: auto (yes) or never.")] = "auto",
    render: Annotated[bool, typer.Option("--render", help="Also write the pages of the checks.")] = False,
    as_json: Json = False,
) -> None:
    """Replay the production loop over past nights, each seeing only what was known that night. Resumes.

    Without --policy the nights become the history of this home. With it, the same nights are replayed under every
    policy at once, in memory, and a table says what each did and what that was worth.

    Ends with exit code 1 where a check stopped a stage of any model on these nights, or a stage or table failed: other
    than with `up`, that every night got through is what was asked.
    """
    from tiltyard.cli import landed
    from tiltyard.edge import describe_nights
    from tiltyard.rewind import hindcast as loop

    assumed = _approval(approve)
    begin, end = clock.parse_night(first), clock.parse_night(last)
    list(clock.nights(begin, end))  # says what is wrong with them before anything is opened
    if policy:
        settings = Settings()
        _try_policies(settings, _chosen(settings, model), (begin, end), policy, jobs or 2, plots, as_json)
        return
    sources = _sources(Settings(), model)
    with options.opened(sources=sources) as opened, progress(as_json) as step:
        landed.require_possible(opened, sources, begin, end)
        chosen = _chosen(opened.settings, model)
        own = _of_their_sources(opened, chosen) if model else opened
        result = loop.hindcast(own, chosen, begin, end, approve=assumed, render=render, progress=step, jobs=jobs)
    if as_json:
        emit(result, as_json)
    else:
        body = result.to_json()
        emit({name: value for name, value in body.items() if name not in ("tables", "quarantined")}, as_json)
        say(describe_nights.held_back(result, opened.settings.quarantine))
    complaints = (
        loop.complaint({name: model.ended_early for name, model in result.models.items()}),
        loop.unscored(result.models),
        loop.unbuilt(result.tables),
    )
    if any(complaints):
        failed(" ".join(filter(None, complaints)))


def _chosen(settings: Settings, names: list[str] | None) -> list[specs.Spec]:
    """The models of these names; without any those that run here."""
    return [specs.find(settings.models, name) for name in names] if names else list(specs.portfolio(settings))


def _sources(settings: Settings, names: list[str] | None) -> tuple[str, ...]:
    """The sources of the models of these names whose specs can be read; without any name those that are active."""
    if not names:
        return settings.sources
    return tuple(sorted({spec.source for spec in specs.read_all(settings.models)[0] if spec.name in names}))


def _of_their_sources(rails: "Rails", chosen: Sequence[specs.Spec]) -> "Rails":
    """The rails with the sources alone that feed what these models read: no night of another source is touched."""
    from tiltyard.prepare.publishing import Feeding

    feeding = Feeding.of(rails.settings)
    sources = {source for spec in chosen for table in spec.tables for source in feeding.of_table(table)}
    active = tuple(sorted(sources | {spec.source for spec in chosen}))
    return replace(rails, settings=rails.settings.model_copy(update={"sources": active}))


def _approval(text: str) -> Literal["auto", "never"]:
    if text == "auto":
        return "auto"
    if text == "never":
        return "never"
    raise BadInput(f"--approve is auto or never, not '{text}'.")


def _try_policies(
    settings: Settings,
    chosen: Sequence[specs.Spec],
    nights: tuple[datetime, datetime],
    names: Sequence[str],
    jobs: int,
    plots: Path | None,
    as_json: bool,
) -> None:
    """Replay the same nights under every policy in `names`, and print a table of what each did."""
    from tiltyard import rails
    from tiltyard.edge import describe_nights
    from tiltyard.rewind import backtest
    from tiltyard.rewind import policy as policies

    portfolio = load_portfolio(settings.models)
    tried = [
        policies.current(chosen, portfolio)
        if name == policies.CURRENT
        else policies.load(Path(name), chosen, portfolio)
        for name in names
    ]
    labels = [policy.name for policy in tried]
    twice = sorted({label for label in labels if labels.count(label) > 1})
    if twice:
        raise BadInput(f"Two policies are called '{twice[0]}'; a policy is named by its file, rename one.")
    folder = plots or settings.reports / "policies"
    with rails.opened(settings) as opened, progress(as_json) as step:
        result = backtest.try_policies(opened, tried, *nights, jobs=jobs, plots=folder, progress=step)

    def show() -> None:
        table(describe_nights.policies(result))
        for line in describe_nights.policies_notes(result):
            say(line)

    emit(result, as_json, show)
