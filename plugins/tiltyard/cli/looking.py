"""`models`, `validate`, `status`, `explain`: what there is, and how it stands. Nothing is written."""

import json
from typing import Annotated

import typer

from tiltyard import clock, release
from tiltyard import spec as specs
from tiltyard.cli import options
from tiltyard.cli.options import Json, Model, ModelOrAll, ScoredAsOf
from tiltyard.cli.output import emit, out, print_error, say, table
from tiltyard.errors import BadInput
from tiltyard.settings import Settings

PANEL = "Look"
commands = typer.Typer()


@commands.command(rich_help_panel=PANEL, epilog="Example: tiltyard models --json")
def models(as_json: Json = False) -> None:
    """List the portfolio: every model, its promise in one line, and whether its source is active here."""
    settings = Settings()
    rows = [
        {
            "model": spec.name,
            "owner": spec.owner,
            "tier": spec.tier,
            "entity": spec.entity,
            "source": spec.source,
            "active": spec.source in settings.sources,
            "horizon": clock.format_duration(spec.label.horizon),
        }
        for spec in specs.load_all(settings.models)
    ]
    emit(rows, as_json, lambda: table(rows))


@commands.command(rich_help_panel=PANEL, epilog="Example: tiltyard validate sla_breach")
def validate(
    model: Annotated[str | None, typer.Argument(help="One model; default: all.", metavar="[MODEL]")] = None,
    schema: Annotated[bool, typer.Option("--schema", help="Print the JSON schema of spec.yaml, for editors.")] = False,
    as_json: Json = False,
) -> None:
    """Hold specs against their schema and the dbt project (tables, keys, columns), and what it says of its columns.

    Exit 2 when one fails.
    """
    from tiltyard.prepare import project as dbt_project

    settings = Settings()
    if schema:
        print(json.dumps(specs.json_schema(), indent=2))
        return
    chosen, refused = specs.read_all(settings.models)
    if model:
        chosen, refused = (specs.find(settings.models, model),), {}
    project = dbt_project.read(settings)
    valid = []
    for spec in chosen:
        try:
            dbt_project.check_spec(project, settings, spec)
            valid.append(spec.name)
        except BadInput as error:
            refused[spec.name] = error
    reasons = {name: str(refused[name]) for name in sorted(refused)}

    def show() -> None:
        if valid:
            out.print(f"[green]ok[/] {', '.join(valid)}")

    emit({"valid": valid, "refused": reasons}, as_json, show)
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
    as_json: Json = False,
) -> None:
    """Show each model's champion, challengers, matured evidence, last decision, drift, freshness and checks."""
    from tiltyard import rails
    from tiltyard.cli import landed
    from tiltyard.edge import describe
    from tiltyard.edge import document as documented
    from tiltyard.edge import status as looking
    from tiltyard.upkeep import maintenance

    if schema:
        print(json.dumps(documented.schema(), indent=2))
        return
    settings = release.in_force(Settings())
    chosen, at = options.chosen(model, settings), options.asked_night(as_of)
    with rails.opened(settings) as opened:
        answers = [looking.status_or_reason(opened, spec, at) for spec in chosen]
        documents = [
            landed.first_step(opened, answer, spec.source) if isinstance(answer, documented.NoNight) else answer
            for spec, answer in zip(chosen, answers, strict=True)
            if not isinstance(answer, str)
        ]
        lake = None if model or as_json else maintenance.last_size(opened)

    def show() -> None:
        for document in documents:
            say(describe.model(document))
        if lake:
            say(describe.lake(*lake))

    emit(documents, as_json, show)
    reasons = [answer for answer in answers if isinstance(answer, str)]
    for reason in reasons:
        print_error(reason)
    if reasons:
        raise typer.Exit(BadInput.exit_code)


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
