"""`models`, `validate`, `status`, `explain`, `predictions`: what there is, and how it stands. Nothing is changed."""

import json
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tiltyard import clock, portfolio_rules, private, release
from tiltyard import spec as specs
from tiltyard.cli import options
from tiltyard.cli.options import Json, Model, ModelOrAll, ScoredAsOf
from tiltyard.cli.output import caution, emit, glance, out, print_error, say, table, write_bytes
from tiltyard.errors import BadInput, Unavailable
from tiltyard.settings import Settings
from tiltyard.words import counted

if TYPE_CHECKING:
    from tiltyard.edge.document import NoNight

PANEL = "Look"
commands = typer.Typer()


@commands.command(rich_help_panel=PANEL, epilog="Example: tiltyard models --json")
def models(as_json: Json = False) -> None:
    """List the checkout's models: each one's promise in a line, whether its source is active here, and what is not in
    force yet: new, changed, removed. A spec that is refused is named (exit 2), and its last accepted text listed."""
    settings = Settings()
    pending = release.pending(settings)
    valid, refused = specs.read_all(settings.models)
    in_force = {spec.name: spec for spec in specs.read_all(release.in_force(settings).models)[0]}
    listed = {spec.name: spec for spec in valid}
    before = [*refused, *(name for name, how in pending.models.items() if how == "removed")]
    listed |= {name: in_force[name] for name in before if name in in_force}
    rows = [
        {
            "model": spec.name,
            "owner": spec.owner,
            "tier": spec.tier,
            "entity": spec.entity,
            "source": spec.source,
            "active": spec.source in settings.sources,
            "horizon": str(spec.label.promised),
            "not_in_force_yet": "refused" if spec.name in refused else pending.models.get(spec.name, ""),
        }
        for _, spec in sorted(listed.items())
    ]
    emit(rows, as_json, lambda: table(rows))
    _caution(pending)
    for _, error in sorted(refused.items()):
        print_error(str(error))
    if refused:
        raise typer.Exit(BadInput.exit_code)


@commands.command(rich_help_panel=PANEL, epilog="Example: tiltyard validate sla_breach")
def validate(
    model: Annotated[list[str] | None, typer.Argument(help="Models; default: all.", metavar="[MODEL]...")] = None,
    schema: Annotated[bool, typer.Option("--schema", help="Print the JSON schema of spec.yaml, for editors.")] = False,
    as_json: Json = False,
) -> None:
    """Hold the checkout's specs against their schema and its dbt project (tables, keys, columns), what that says of its
    columns, its SQL against its .yml, the contracts with its sources, and what holds for all models. Exit 2 when one
    fails. What holds and is not in force yet is named."""
    from tiltyard.prepare import contracts
    from tiltyard.prepare import project as dbt_project

    settings = Settings()
    if schema:
        print(json.dumps(specs.json_schema(), indent=2))
        return
    chosen, refused = specs.read_all(settings.models)
    if model:
        chosen, refused = tuple(specs.find(settings.models, name) for name in model), {}
    project = dbt_project.read(settings)
    valid = []
    for spec in chosen:
        try:
            dbt_project.check_spec(project, settings, spec)
            valid.append(spec.name)
        except BadInput as error:
            refused[spec.name] = error
    told = {str(error) for error in refused.values()}
    for name, why in () if model else project.said.disagreements.items():
        if why not in told:  # of a table that no model names
            refused[name] = BadInput(why)
    strangers: tuple[str, ...] = ()
    if not model:
        try:
            strangers = portfolio_rules.check_portfolio(settings.models, clock.now().date())
        except BadInput as error:
            refused[portfolio_rules.PORTFOLIO] = error
    read = []
    for source in () if model else contracts.sources(settings):
        try:
            read.append(contracts.read(settings, source))
            contracts.tell_apart(settings, read)
        except BadInput as error:
            refused[source] = error
    reasons = {name: str(refused[name]) for name in sorted(refused)}
    pending = release.pending(settings)

    def show() -> None:
        if valid:
            out.print(f"[green]ok[/] {', '.join(valid)}")

    emit(
        {"valid": valid, "refused": reasons, "cautions": strangers, "not_in_force_yet": dict(pending.models)},
        as_json,
        show,
    )
    _caution(pending)
    for sentence in strangers:
        caution(f"{sentence}.")
    if reasons and not as_json:
        for reason in reasons.values():
            print_error(reason)
    if reasons:
        raise typer.Exit(BadInput.exit_code)


@commands.command(rich_help_panel=PANEL, epilog="Example: tiltyard status sla_breach --json")
def status(
    model: ModelOrAll = None,
    as_of: ScoredAsOf = None,
    schema: Annotated[bool, typer.Option("--schema", help="Print the JSON schema of what --json prints.")] = False,
    watch: Annotated[
        float | None, typer.Option(metavar="SECONDS", min=1, help="Show the table again and again, until Ctrl-C.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Show a model's champion, challengers, matured evidence, last decision, drift, freshness and checks, under the
    texts in force; what of the checkout is not in force yet is named.

    Without MODEL of several models what the portfolio page shows: a line for each, the most trouble first, and all that
    waits for a person. With --json, or of a past night, every model's document.
    """
    from tiltyard import rails
    from tiltyard.cli import landed
    from tiltyard.edge import describe, describe_lake
    from tiltyard.edge import document as documented
    from tiltyard.edge import status as looking
    from tiltyard.upkeep import maintenance

    if schema:
        print(json.dumps(documented.schema(), indent=2))
        return
    settings, pending = release.in_force(Settings()), release.pending(Settings())
    waiting, wrong = _waiting(pending, model)
    chosen = () if model and (waiting or wrong) else options.chosen(model, settings)
    at = options.asked_night(as_of)
    if watch is not None:
        if model or at is not None or as_json:
            raise BadInput("--watch shows the table of all models as it stands now; leave the rest out.")
        _watch(settings, chosen, watch)
        return
    if len(chosen) > 1 and at is None and not as_json:
        _glance(settings, chosen)
        _caution(pending)
        for reason in wrong:
            print_error(reason)
        raise typer.Exit(BadInput.exit_code if wrong else 0)
    with rails.opened(settings) as opened:
        answers = [looking.status_or_reason(opened, spec, at) for spec in chosen]
        told = [
            landed.first_step(opened, answer, spec.source) if isinstance(answer, documented.NoNight) else answer
            for spec, answer in zip(chosen, answers, strict=True)
            if not isinstance(answer, str)
        ]
        lake = None if model or as_json else maintenance.last_size(opened)

    differing = [replace(document, not_in_force_yet=pending.models.get(document.model)) for document in told]
    documents = sorted([*differing, *waiting], key=lambda document: document.model)

    def show() -> None:
        for document in documents:
            say(describe.model(document))
        if lake:
            say(describe_lake.lake(*lake))

    emit(documents, as_json, show)
    _caution(pending)
    reasons = [*(answer for answer in answers if isinstance(answer, str)), *wrong]
    for reason in reasons:
        print_error(reason)
    if reasons:
        raise typer.Exit(BadInput.exit_code)


def _watch(settings: Settings, chosen: Sequence[specs.Spec], every: float) -> None:
    """Print the table again and again, on a terminal each time from its top, until somebody interrupts it."""
    try:
        while True:
            if out.is_terminal:
                out.clear()
            try:
                _glance(settings, chosen)
            except Unavailable as error:  # it may come back, and whoever watches sees when
                print_error(str(error))
            say(f"\n{clock.now():%Y-%m-%d %H:%M:%S} UTC, again every {every:g} s; Ctrl-C ends it.")
            time.sleep(every)
    except KeyboardInterrupt:
        return


def _glance(settings: Settings, chosen: Sequence[specs.Spec]) -> None:
    """Print all models at a glance, and what waits for a person."""
    from tiltyard import rails
    from tiltyard.edge import board, board_query, describe_lake
    from tiltyard.records import LakeMaintenanceSummary

    with rails.opened(settings) as opened:
        found = board.read(opened, chosen, clock.now())
        kept = opened.ledger.last_stage_run(LakeMaintenanceSummary)
    glance(
        {
            "model": row.model,
            "state": row.state,
            "serves": "default" if row.champion is None else f"v{row.champion}",
            "loss": f"{row.loss.champion:.4f}" if row.loss else "–",
            "vs default": "–" if row.against_default is None else f"{100 * row.against_default:+.0f} %",
            "drift": row.drift or "–",
            "nights": "".join(board_query.MARKS[status] for _, status in row.ends),
            "why": row.reason,
        }
        for row in found.models
    )
    counts = ", ".join(f"{count} {state}" for state, count in found.counts.items())
    say(f"\n{counts}; tiltyard status MODEL says all of one.")
    say(f"Needs you ({len(found.inbox)})" if found.inbox else "Nothing waits for a person.")
    for item in found.inbox:
        since = f" since {item.since}" if item.since else ""
        until = f", until {item.until:%Y-%m-%d %H:%M} UTC" if item.until else ""
        say(f"  {item.kind:<12} {item.subject}{since}{until}: {item.reason}")
    if kept and kept.summary.scrub and not kept.summary.scrub.is_encrypted:
        say(describe_lake.PLAIN)


def _caution(pending: release.Pending) -> None:
    """Say what of the checkout is not in force yet, and what puts it there."""
    if sentence := str(pending):
        caution(sentence)


def _waiting(pending: release.Pending, model: str | None) -> "tuple[list[NoNight], list[str]]":
    """Of the new models that are not in force yet, or of the one that is asked about: the documents, and a sentence
    each of those whose spec does not hold."""
    from tiltyard.edge.document import NoNight

    settings = Settings()
    read, refused = specs.read_all(settings.models) if "new" in pending.models.values() else ((), {})
    wrong = [
        f"{name} is new, and its spec does not hold: {error}"
        for name, error in sorted(refused.items())
        if pending.models.get(name) == "new" and model in (None, name)
    ]
    documents = [
        NoNight(
            model=spec.name,
            owner=spec.owner,
            tier=spec.tier,
            measure=spec.target.measure,
            not_in_force_yet="new",
            state="new in the checkout and not in force yet; tiltyard release says whether it is accepted",
        )
        for spec in read
        if pending.models.get(spec.name) == "new" and model in (None, spec.name) and spec.source in settings.sources
    ]
    return documents, wrong


@commands.command(rich_help_panel=PANEL, epilog="Example: tiltyard explain sla_breach 1f0c…")
def explain(
    model: Model,
    request_id: Annotated[
        str, typer.Argument(help="request_id of a prediction, as in ops.prediction.", metavar="REQUEST_ID")
    ],
    as_json: Json = False,
) -> None:
    """Show one prediction: each feature with its event_time and available_at, version, snapshot, tier, truth."""
    from tiltyard import rails
    from tiltyard.edge import describe
    from tiltyard.edge import status as looking

    spec = options.spec(model)
    with rails.opened() as opened:
        document = looking.explain(opened, spec, request_id)
    emit(document, as_json, lambda: say(describe.prediction(document)))


@commands.command(
    rich_help_panel=PANEL, epilog="Example: tiltyard predictions sla_breach --night 2016-05-02 --out scores.csv"
)
def predictions(
    model: Model,
    night: Annotated[
        str | None,
        typer.Option("--night", "--as-of", metavar="DATE", help="The night, UTC. Default: the newest that was scored."),
    ] = None,
    kind: Annotated[str, typer.Option("--format", metavar="csv|parquet", help="How the rows are written.")] = "csv",
    out_file: Annotated[
        Path | None, typer.Option("--out", metavar="FILE", help="Where to. Default: standard output.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Write out one night's answers, one per row of the spine: entity, time, score, version, tier and reason; where the
    label is one of several classes, the likeliest and the probability of each as well. With --json they are one
    document, or, with --out, what was written."""
    from tiltyard import rails
    from tiltyard.answered import predictions as answers

    spec, asked, written_as = options.spec(model), options.asked_night(night), _format(kind)
    if written_as == "parquet" and out_file is None and not as_json and sys.stdout.isatty():
        raise BadInput("Parquet is nothing for a terminal; name a file with --out, or send it on.")
    with rails.opened() as opened:
        day = clock.night_closing(asked) if asked else answers.newest_night(opened, spec.name)
        rows = answers.of_night(opened, spec.name, day, spec.target)
    if out_file is not None:
        with private.as_usual():  # it is whose the folder is
            answers.save(rows, out_file, written_as)
        document = {"model": spec.name, "night": day, "rows": rows.num_rows, "file": out_file, "format": written_as}
        told = f"{counted(rows.num_rows, 'answer')} of {spec.name} of {day}: {out_file}"
        emit(document, as_json, lambda: say(told))
    elif as_json:
        emit({"model": spec.name, "night": day, "rows": rows.to_pylist()}, as_json)
    else:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "rows")
            answers.save(rows, path, written_as)
            write_bytes(path.read_bytes())


def _format(text: str) -> specs.OutputFormat:
    match text:
        case "csv" | "parquet":
            return text
    raise BadInput(f"--format is csv or parquet, not '{text}'.")
