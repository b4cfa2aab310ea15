"""`govern`, `incidents`, `fallback`: what is decided for all models together, and a person's word on it; `release`:
which of their texts are in force; and the lake that they share: `holds`, `lake-maintenance`."""

from dataclasses import asdict
from datetime import timedelta
from typing import Annotated

import typer
from typer.core import TyperGroup

from tiltyard import clock, release
from tiltyard.cli import options
from tiltyard.cli.options import AsOf, AuditedAsOf, GovernedAsOf, Json, Model, ModelOrAll
from tiltyard.cli.output import caution, emit, say
from tiltyard.records import GovernorSummary
from tiltyard.settings import Settings
from tiltyard.words import counted

PANEL = "All models together"
commands = typer.Typer()
incidents = typer.Typer(help="What is wrong upstream of several models, and a person's word on it.")
commands.add_typer(incidents, name="incidents", rich_help_panel=PANEL, epilog="Example: tiltyard incidents")


holds = typer.Typer(help="Legal holds: a person's word that nothing of some days may go from the lake.")
commands.add_typer(holds, name="holds", rich_help_panel=PANEL, epilog="Example: tiltyard holds")


class _ShowByDefault(TyperGroup):
    """`tiltyard fallback MODEL` is `tiltyard fallback show MODEL`: what is no command of the group is a model."""

    def parse_args(self, ctx: typer.Context, args: list[str]) -> list[str]:  # type: ignore[override]
        is_named = bool(args) and (args[0] in self.commands or args[0] == "--help")
        return super().parse_args(ctx, args if is_named else ["show", *args])


fallback = typer.Typer(
    cls=_ShowByDefault, help="Who answered, tier by tier, and a person's word on a safe default that lasts."
)
commands.add_typer(
    fallback, name="fallback", rich_help_panel=PANEL, epilog="Example: tiltyard fallback show sla_breach"
)


@commands.command(rich_help_panel=PANEL, epilog="Example: tiltyard govern --as-of 2016-05-02")
def govern(as_of: AsOf = None, as_json: Json = False) -> None:
    """Decide on the findings of all models of a night: which retrain, which wait, what is one incident upstream."""
    from tiltyard import rails
    from tiltyard.cli import landed
    from tiltyard.edge import describe
    from tiltyard.govern import grants

    night = options.night(as_of)
    with rails.opened() as opened:
        landed.require_possible(opened, opened.settings.sources, night)
        result = grants.govern_night(opened, night)
    emit(result, as_json, lambda: say(describe.governed(result)))


@commands.command("release", rich_help_panel=PANEL, epilog="Example: tiltyard release --dry-run")
def put_in_force(
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would change and what would be refused; put nothing in force.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Put the specs, suites and dbt files of this checkout in force, as the next night would. What is refused is named
    (exit 1), and stays as it was."""
    from tiltyard import rails
    from tiltyard.prepare import releasing

    settings = Settings()
    before = release.stored(release.current(settings))
    with rails.opened(settings) as opened:
        now = clock.now()
        accepted = releasing.preview(opened, now) if dry_run else releasing.accept(opened, now, by=options.user())
    is_same = accepted.digest == release.digest(before)
    # of a dry run: of the checkout, so that a file which is refused counts as well
    after = release.working(settings) if dry_run else release.stored(release.current(settings))
    changes, named = release.Changes.between(before, after), release.Pending.between(before, after)
    what = "is already in force" if is_same else "would be in force" if dry_run else "is in force"
    against = "the checkout differs from the one in force" if dry_run else "against the one before"
    differs = f"; {against}: {changes}: {named.named}"
    size = counted(accepted.files, "file")
    lines = [f"release {accepted.name} {what}: {size}{'' if is_same or not before else differs}"]
    document = {
        **accepted.to_json(),
        "is_already_in_force": is_same,
        "changes": {**asdict(changes), "models": named.models},
    }
    emit(document, as_json, lambda: say("\n".join([*lines, *map(str, accepted.refused)])))
    if accepted.refused:
        raise typer.Exit(1)


@incidents.callback(invoke_without_command=True, epilog="Example: tiltyard incidents --as-of 2016-05-02")
def show_incidents(context: typer.Context, as_of: GovernedAsOf = None, as_json: Json = False) -> None:
    """List what is open: what feeds models and is broken, or moved in many of them at once. `status` says the same."""
    if context.invoked_subcommand:
        return
    from tiltyard import rails
    from tiltyard.edge import describe
    from tiltyard.govern import standing

    with rails.opened() as opened:
        asked = options.asked_night(as_of)
        result = standing.incidents(opened, asked)
        before = asked.date() + timedelta(days=1) if asked else None
        newest = opened.ledger.last_stage_run(GovernorSummary, before=before)
    emit(result, as_json, lambda: say(describe.incidents(result)))
    if not as_json and (newest is None or (asked and newest.night < asked.date())):
        looked = f"its newest night is that of {newest.night}" if newest else "it has done none yet"
        of = f" the night of {asked.date()}" if asked else " any night"
        caution(f"The governor has not decided on{of}, {looked}; tiltyard status says which tables are not good.")


@incidents.command("release", epilog="Example: tiltyard incidents release raw.payment --reason 'prices rose in March'")
def release_incident(
    node: Annotated[str, typer.Argument(help="The table of the incident, as the list names it.", metavar="NODE")],
    reason: Annotated[str, typer.Option(help="Why it is the world and no fault; kept with your name.")],
    as_of: GovernedAsOf = None,
    as_json: Json = False,
) -> None:
    """Say that a shift which models share is the world, or labels that are suspect are: from that night on they may
    retrain on it."""
    from tiltyard import rails
    from tiltyard.govern import grants

    with rails.opened() as opened:
        result = grants.release(opened, node, by=options.user(), reason=reason, as_of=options.asked_night(as_of))
    emit(result, as_json)


@fallback.command("show", epilog="Example: tiltyard fallback show sla_breach --as-of 2016-05-02")
def show_answers(model: ModelOrAll = None, as_of: AuditedAsOf = None, as_json: Json = False) -> None:
    """Show who answered on the newest audited night, and the tasks of models that stay on their safe default.

    The word `show` may be left out.
    """
    from tiltyard import rails
    from tiltyard.answered import fallback_audit
    from tiltyard.edge import describe

    settings = release.in_force(Settings())
    chosen = options.chosen(model, settings)
    with rails.opened(settings) as opened:
        reports = [fallback_audit.report(opened, spec, options.asked_night(as_of)) for spec in chosen]
    emit(reports, as_json, lambda: say(describe.answered(reports)))


@fallback.command("audit", epilog="Example: tiltyard fallback audit sla_breach --as-of 2016-05-02")
def audit_answers(model: Model, as_of: AsOf = None, as_json: Json = False) -> None:
    """Count a night's answers, and open or close the model's task: what the DAG fallback_audit does every night."""
    from tiltyard import rails
    from tiltyard.answered import fallback_audit
    from tiltyard.cli import landed

    spec, night = options.spec(model), options.night(as_of)
    with rails.opened() as opened:
        landed.require_possible(opened, [spec.source], night)
        result = fallback_audit.audit_night(opened, spec, night)
    emit(result, as_json)


@fallback.command(
    "explain",
    epilog="Example: tiltyard fallback explain churn --cause 'no labels since the move' --owner ann --until 2025-06-14",
)
def explain_default(
    model: Model,
    cause: Annotated[str, typer.Option(help="Why the model cannot answer.")],
    owner: Annotated[str, typer.Option(help="Who sees to it.")],
    until: Annotated[str, typer.Option(metavar="DATE", help="How long it may stay there; then it is asked again.")],
    as_json: Json = False,
) -> None:
    """Answer the open task of a model that stays on its safe default; kept with your name, like the form in Airflow."""
    from tiltyard import rails
    from tiltyard.answered import fallback_audit

    spec = options.spec(model)
    with rails.opened() as opened:
        result = fallback_audit.answer_task(
            opened,
            spec,
            cause=cause,
            owner=owner,
            until=until,
            by=options.user(),
            source="command line",
            at=clock.now(),
        )
    emit(result, as_json)


@holds.callback(invoke_without_command=True, epilog="Example: tiltyard holds")
def show_holds(context: typer.Context, as_json: Json = False) -> None:
    """List the legal holds that stand: while there is one, no row goes, and its days stay readable as they were."""
    if context.invoked_subcommand:
        return
    from tiltyard import rails
    from tiltyard.edge import describe
    from tiltyard.upkeep import holds as legal

    with rails.opened() as opened:
        result = legal.open_ones(opened)
    emit(result, as_json, lambda: say(describe.holds(result)))


@holds.command("set", epilog="Example: tiltyard holds set --reason 'case 17' --from 2016-03-01 --to 2016-04-30")
def set_hold(
    reason: Annotated[str, typer.Option(help="Why; kept with your name.")],
    first: Annotated[
        str | None, typer.Option("--from", metavar="DATE", help="The first day, UTC. Default: from the beginning.")
    ] = None,
    last: Annotated[
        str | None, typer.Option("--to", metavar="DATE", help="The last day, included. Default: until it is released.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Set a legal hold on the lake as it stood on these days, by the wall clock; meanwhile no table loses a row."""
    from tiltyard import rails
    from tiltyard.upkeep import holds as legal

    start, end = options.instant(first), options.instant(last)
    with rails.opened() as opened:
        result = legal.hold(
            opened, start.date() if start else None, end.date() if end else None, by=options.user(), reason=reason
        )
    emit(result, as_json)


@holds.command("release", epilog="Example: tiltyard holds release 12 --reason 'case 17 is closed'")
def release_hold(
    number: Annotated[int, typer.Argument(help="The hold's number, as the list has it.", metavar="NUMBER")],
    reason: Annotated[str, typer.Option(help="Why it may end; kept with your name.")],
    as_json: Json = False,
) -> None:
    """End a legal hold: the next maintenance may let go what nothing else refers to."""
    from tiltyard import rails
    from tiltyard.upkeep import holds as legal

    with rails.opened() as opened:
        result = legal.release(opened, number, by=options.user(), reason=reason)
    emit(result, as_json)


@commands.command("lake-maintenance", rich_help_panel=PANEL, epilog="Example: tiltyard lake-maintenance --dry-run")
def maintain_lake(
    as_of: AsOf = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be done.")] = False,
    as_json: Json = False,
) -> None:
    """Merge the lake's small files, expire snapshots that nothing refers to, remove files that nothing reads."""
    from tiltyard import rails
    from tiltyard.upkeep import maintenance

    now = clock.now()
    with rails.opened() as opened:
        result = maintenance.maintain(opened, options.night(as_of), now=now, dry_run=dry_run)
    emit(result, as_json)
