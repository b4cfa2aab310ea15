"""The command line: `tiltyard COMMAND`. The same functions as the DAG tasks, one command a stage.

Every command takes `--json`. Errors are one sentence: exit 2 for bad input, 1 for a failed check.
"""

import errno
import functools
import json
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from pydantic import ValidationError
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from typer.core import TyperGroup

from tiltyard import clock
from tiltyard import spec as specs
from tiltyard.errors import BadInput, TiltyardError
from tiltyard.settings import NO_TELEMETRY, Settings

app = typer.Typer(
    help="A portfolio of machine-learning models in production, on one set of rails.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
)
data = typer.Typer(help="Fetch the data that the models feed on.", no_args_is_help=True)
app.add_typer(data, name="data")
stream = typer.Typer(help="Keep online features up to the minute from a stream.", no_args_is_help=True)
app.add_typer(stream, name="stream")
leakage = typer.Typer(help="Leakage: what a model could not have known yet.", no_args_is_help=True)
app.add_typer(leakage, name="leakage")
incidents = typer.Typer(help="What is wrong upstream of several models, and a person's word on it.")
app.add_typer(incidents, name="incidents")
keys = typer.Typer(help="API keys of the service.", no_args_is_help=True)
app.add_typer(keys, name="keys")
requests = typer.Typer(help="The log of the answers that were given online.", no_args_is_help=True)
app.add_typer(requests, name="requests")


class _Shown(TyperGroup):
    """`tiltyard fallback MODEL` is `tiltyard fallback show MODEL`: what is no command of the group is a model."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        is_named = bool(args) and (args[0] in self.commands or args[0] == "--help")
        return super().parse_args(ctx, args if is_named else ["show", *args])


fallback = typer.Typer(cls=_Shown, help="Who answered, tier by tier, and a person's word on a safe default that lasts.")
app.add_typer(fallback, name="fallback", epilog="Example: tiltyard fallback sla_breach")
out = Console(highlight=False, width=None if sys.stdout.isatty() else 10_000)  # a pipe has no edge to cut tables at
err = Console(stderr=True, highlight=False)

Json = Annotated[bool, typer.Option("--json", help="Print one JSON document instead of text.")]
Model = Annotated[str, typer.Argument(help="Name of a model: a folder under models/.", metavar="MODEL")]
AsOf = Annotated[
    str | None,
    typer.Option(
        "--as-of", metavar="DATE", help="The night: the end of its data interval, UTC. Default: the last midnight."
    ),
]

Governed = Annotated[
    str | None,
    typer.Option("--as-of", metavar="DATE", help="The night, UTC. Default: the newest that the governor decided on."),
]


def main() -> None:
    """Entry point. A user's mistake ends in one sentence and an exit code, never in a traceback."""
    os.environ.update(NO_TELEMETRY)
    try:
        code = app(standalone_mode=False)  # what typer.Exit carried, or what a command returned: nothing
    except TiltyardError as error:
        _fail(str(error), error.exit_code)
    except (KeyboardInterrupt, typer.Abort):
        _interrupted()
    except Exception as error:
        if isinstance(error, RuntimeError) and str(error) == "Query interrupted":  # DuckDB's word for Ctrl-C
            _interrupted()
        if hasattr(error, "format_message") and hasattr(error, "exit_code"):  # click's usage errors
            _print_error(f"{error.format_message()} Try tiltyard --help.")
            sys.exit(error.exit_code)
        if isinstance(error, ValidationError) and error.title == "Settings":
            _fail(_unset(error), 2)
        reason = _no_room(error)
        if not reason:
            raise
        _fail(
            f"{Settings().home} cannot be written to ({reason}); make room there, or set TILTYARD_HOME to a folder of "
            "your own.",
            2,
        )
    sys.exit(code or 0)


def _interrupted() -> NoReturn:
    err.print("Interrupted; what was committed is kept, and the same command goes on from there.")
    sys.exit(130)


def _fail(sentence: str, code: int) -> NoReturn:
    if "--json" in sys.argv:
        print(json.dumps({"error": sentence}))
    _print_error(sentence)
    sys.exit(code)


def _print_error(sentence: str) -> None:
    """The one place that prints an error. A pipe gets it as one line: at a width, rich breaks a long path in two."""
    err.print(f"[bold red]error[/] {_plain(sentence)}", soft_wrap=not sys.stderr.isatty())


def _unset(error: ValidationError) -> str:
    """What is wrong with a setting; never its value, which may be a secret."""
    first = error.errors()[0]
    return f"TILTYARD_{'_'.join(map(str, first['loc'])).upper()} cannot be read: {first['msg']}; mend or unset it."


def _no_room(error: Exception) -> str | None:
    """Why the home takes no files, when that is what stopped the command."""
    if "No space left on device" in str(error):  # also what DuckDB and PostgreSQL say
        return "no space left on device"
    home = Settings().home
    if isinstance(error, OSError) and error.filename and Path(os.fsdecode(error.filename)).is_relative_to(home):
        refused = error.errno in (errno.EACCES, errno.EPERM, errno.EROFS, errno.EDQUOT)
        return error.strerror if refused or not home.is_dir() else None
    return None


# -- everything ---------------------------------------------------------------------------------------------


@app.command(epilog="Example: tiltyard up --data simulated")
def up(
    name: Annotated[
        str,
        typer.Option("--data", metavar="NAME", help="Like incident or simulated; a wrong name is told the right ones."),
    ] = "incident",
    as_json: Json = False,
) -> None:
    """Fetch, hindcast a history, start Airflow, run the last three nights in it. Safe to repeat."""
    from tiltyard.edge import quickstart

    with _progress(as_json) as say:
        result = quickstart.up(Settings(), name, say)
    _emit(result, as_json, lambda: out.print(_plain(quickstart.summary(result)), soft_wrap=True))


@app.command(epilog="Example: tiltyard down")
def down(as_json: Json = False) -> None:
    """Stop Airflow and the embedded PostgreSQL; nothing committed is lost."""
    from tiltyard.edge import services

    with _progress(as_json) as say:
        result = services.stop(Settings(), progress=lambda label, share: say(label, share or 0.0))
    _emit(result, as_json, lambda: out.print(f"stopped: {', '.join(result['stopped']) or 'nothing was running'}"))


# -- looking ------------------------------------------------------------------------------------------------


@app.command(epilog="Example: tiltyard models --json")
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
    _emit(rows, as_json, lambda: _table(rows))


@app.command(epilog="Example: tiltyard validate sla_breach")
def validate(
    model: Annotated[str | None, typer.Argument(help="One model; default: all.", metavar="[MODEL]")] = None,
    schema: Annotated[bool, typer.Option("--schema", help="Print the JSON schema of spec.yaml, for editors.")] = False,
    as_json: Json = False,
) -> None:
    """Hold specs against their schema and against the dbt project: tables, keys, columns."""
    from tiltyard.prepare import transform

    settings = Settings()
    if schema:
        print(json.dumps(specs.json_schema(), indent=2))
        return
    chosen = [specs.find(settings.models, model)] if model else list(specs.load_all(settings.models))
    for spec in chosen:
        transform.check_spec(settings, spec)
    result = {"valid": [spec.name for spec in chosen]}
    _emit(result, as_json, lambda: out.print(f"[green]ok[/] {', '.join(result['valid'])}"))


@app.command(epilog="Example: tiltyard status sla_breach --json")
def status(
    model: Annotated[str | None, typer.Argument(help="One model; default: the portfolio.", metavar="[MODEL]")] = None,
    as_of: AsOf = None,
    as_json: Json = False,
) -> None:
    """Champion, challengers, matured evidence, last decision, drift, freshness and checks of each model."""
    from tiltyard import rails
    from tiltyard.edge import describe
    from tiltyard.edge import status as looking

    settings = Settings()
    chosen = [specs.find(settings.models, model)] if model else list(specs.portfolio(settings))
    with rails.opened(settings) as opened:
        result = [looking.status(opened, spec, clock.parse_as_of(as_of) if as_of else None) for spec in chosen]
    _emit(result, as_json, lambda: [out.print(_plain(describe.model(row)), soft_wrap=True) for row in result])


@app.command(epilog="Example: tiltyard explain sla_breach 1f0c…")
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

    settings = Settings()
    spec = specs.find(settings.models, model)
    with rails.opened(settings) as opened:
        result = looking.explain(opened, spec, request_id)
    _emit(result, as_json, lambda: out.print(_plain(describe.prediction(result)), soft_wrap=True))


# -- the stages ---------------------------------------------------------------------------------------------


@data.command("fetch", epilog="Example: tiltyard data fetch incident")
def data_fetch(
    name: Annotated[
        str, typer.Argument(help="Like incident or simulated; a wrong name is told the right ones.", metavar="NAME")
    ],
    cancel_trigger: Annotated[
        bool,
        typer.Option(
            "--cancel-trigger", help="simulated: the CRM blanks the last log-in of whoever cancels, in place."
        ),
    ] = False,
    as_json: Json = False,
) -> None:
    """Download a data set (or make the simulated one), check its content, lay it out as daily deliveries."""
    from tiltyard.prepare import datasets

    with _progress(as_json) as say:
        result = datasets.fetch(Settings(), name, progress=say, cancel_trigger=cancel_trigger)
    _emit(result, as_json)


@app.command(epilog="Example: tiltyard ingest --as-of 2016-04-02")
def ingest(as_of: AsOf = None, as_json: Json = False) -> None:
    """Land what became available until the night: append-only, exactly once; bad files go to quarantine."""
    _stage(as_json, lambda rails, features: features.ingest(rails, _as_of(as_of)))


@app.command(epilog="Example: tiltyard features --as-of 2016-04-02")
def features(as_of: AsOf = None, as_json: Json = False) -> None:
    """Ingest, build with dbt, check, publish. A critical check stops the batch (exit 1)."""
    _stage(as_json, lambda rails, features: features.run(rails, _as_of(as_of)))


@app.command(epilog="Example: tiltyard train sla_breach --as-of 2016-04-02 --reason 'new feature'")
def train(
    model: Model,
    as_of: AsOf = None,
    reason: Annotated[list[str] | None, typer.Option("--reason", help="Why; kept with the version.")] = None,
    trials: Annotated[int | None, typer.Option(min=1, max=500, help="Tuning trials; default: the spec's.")] = None,
    as_json: Json = False,
) -> None:
    """Train a champion-to-be and its light twin on matured labels; register it as a challenger."""
    from tiltyard import rails
    from tiltyard.train import training

    spec, night = _spec(model), _as_of(as_of)
    with rails.opened() as opened:
        result = training.train(
            opened, spec, night, requested_by=_user(), reasons=tuple(reason or ("asked by hand",)), trials=trials
        )
    _emit(result, as_json)


@app.command(epilog="Example: tiltyard shadow sla_breach --as-of 2016-04-10")
def shadow(model: Model, as_of: AsOf = None, as_json: Json = False) -> None:
    """Score the night with champion and challengers; evaluate both on matured cohorts."""
    from tiltyard.judge import shadow as stage

    _model_stage(model, as_of, as_json, stage.run)


@app.command(epilog="Example: tiltyard promote sla_breach --as-of 2016-05-02")
def promote(model: Model, as_of: AsOf = None, as_json: Json = False) -> None:
    """Let the gate decide on matured evidence. Tier 1 is decided here and approved in Airflow."""
    from tiltyard.judge import promotion as stage

    _model_stage(model, as_of, as_json, stage.run)


@app.command(epilog="Example: tiltyard drift sla_breach --as-of 2016-05-02")
def drift(model: Model, as_of: AsOf = None, as_json: Json = False) -> None:
    """Compare the night's window with the training reference, and keep what was found for the governor."""
    from tiltyard.govern import drift as stage

    _model_stage(model, as_of, as_json, stage.run)


@app.command(epilog="Example: tiltyard govern --as-of 2016-05-02")
def govern(as_of: AsOf = None, as_json: Json = False) -> None:
    """Decide on the findings of all models of a night: which retrain, which wait, what is one incident upstream."""
    from tiltyard import rails
    from tiltyard.edge import describe
    from tiltyard.govern import grants

    with rails.opened() as opened:
        result = grants.run(opened, _as_of(as_of))
    _emit(result, as_json, lambda: out.print(_plain(describe.governed(result)), soft_wrap=True))


@incidents.callback(invoke_without_command=True, epilog="Example: tiltyard incidents --as-of 2016-05-02")
def incidents_open(context: typer.Context, as_of: Governed = None, as_json: Json = False) -> None:
    """List the portfolio's open incidents: what feeds several models and is broken, or moved in all of them at once."""
    if context.invoked_subcommand:
        return
    from tiltyard import rails
    from tiltyard.edge import describe
    from tiltyard.govern import grants

    with rails.opened() as opened:
        result = grants.incidents(opened, clock.parse_as_of(as_of) if as_of else None)
    _emit(result, as_json, lambda: out.print(_plain(describe.incidents(result)), soft_wrap=True))


@incidents.command("release", epilog="Example: tiltyard incidents release raw.payment --reason 'prices rose in March'")
def incidents_release(
    node: Annotated[str, typer.Argument(help="The table of the incident, as the list names it.", metavar="NODE")],
    reason: Annotated[str, typer.Option(help="Why it is the world and no fault; kept with your name.")],
    as_of: Governed = None,
    as_json: Json = False,
) -> None:
    """Say that a shift which models share is the world: from that night on they may retrain on it."""
    from tiltyard import rails
    from tiltyard.govern import grants

    with rails.opened() as opened:
        night = clock.parse_as_of(as_of) if as_of else None
        result = grants.release(opened, node, by=_user(), reason=reason, as_of=night)
    _emit(result, as_json)


@fallback.command("show", epilog="Example: tiltyard fallback sla_breach --as-of 2016-05-02")
def fallback_show(
    model: Annotated[str | None, typer.Argument(help="A model; default: all of the portfolio.")] = None,
    as_of: Annotated[
        str | None,
        typer.Option("--as-of", metavar="DATE", help="The night, UTC. Default: the newest that was audited."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Show who answered on the newest audited night, and the tasks of models that stay on their safe default."""
    from tiltyard import rails
    from tiltyard.answered import fallback_audit
    from tiltyard.edge import describe

    settings = Settings()
    asked = (specs.find(settings.models, model),) if model else specs.portfolio(settings)
    with rails.opened(settings) as opened:
        result = fallback_audit.document(opened, asked, clock.parse_as_of(as_of) if as_of else None)
    _emit(result, as_json, lambda: out.print(_plain(describe.answered(result)), soft_wrap=True))


@fallback.command("audit", epilog="Example: tiltyard fallback audit sla_breach --as-of 2016-05-02")
def fallback_count(model: Model, as_of: AsOf = None, as_json: Json = False) -> None:
    """Count a night's answers, and open or close the model's task: what the DAG fallback_audit does every night."""
    from tiltyard import rails
    from tiltyard.answered import fallback_audit

    settings = Settings()
    spec = specs.find(settings.models, model)
    with rails.opened(settings) as opened:
        result = fallback_audit.run(opened, spec, _as_of(as_of))
    _emit(result, as_json)


@fallback.command(
    "explain",
    epilog="Example: tiltyard fallback explain churn --cause 'no labels since the move' --owner ann --until 2025-06-01",
)
def fallback_explain(
    model: Model,
    cause: Annotated[str, typer.Option(help="Why the model cannot answer.")],
    owner: Annotated[str, typer.Option(help="Who sees to it.")],
    until: Annotated[str, typer.Option(metavar="DATE", help="How long it may stay there; then it is asked again.")],
    as_json: Json = False,
) -> None:
    """Answer the open task of a model that stays on its safe default; kept with your name, like the form in Airflow."""
    from tiltyard import rails
    from tiltyard.answered import fallback_audit

    settings = Settings()
    spec = specs.find(settings.models, model)
    values = {"cause": cause, "owner": owner, "until": until, "by": _user(), "source": "command line"}
    with rails.opened(settings) as opened:
        result = fallback_audit.explain(opened, spec, **values, at=clock.now())
    _emit(result, as_json)


@app.command(
    epilog="Example: tiltyard hindcast --model sla_breach --from 2016-03-25 --to 2016-05-20\n\n"
    "tiltyard hindcast --from 2016-04-01 --to 2016-05-30 --policy current --policy cautious.yaml"
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
            help="Try it on these nights and write nothing into lake or ledger; repeat it to compare. "
            "'current' stands for the specs as they are.",
        ),
    ] = None,
    jobs: Annotated[int, typer.Option(min=1, max=64, help="With --policy: processes that train and judge.")] = 2,
    plots: Annotated[
        Path | None, typer.Option("--plots", metavar="FOLDER", help="With --policy: where pictures go.")
    ] = None,
    approve: Annotated[str, typer.Option(help="What approvals are assumed to say: auto or never.")] = "auto",
    render: Annotated[bool, typer.Option("--render", help="Also write the nightly HTML reports.")] = False,
    as_json: Json = False,
) -> None:
    """Replay the production loop over past nights, each seeing only what was known that night. Resumes.

    Without --policy the nights become the history of this home. With it, the same nights are replayed under every
    policy at once, in memory, and a table says what each did and what that was worth.
    """
    from tiltyard import rails
    from tiltyard.rewind import hindcast as loop

    if approve not in ("auto", "never"):
        raise BadInput(f"--approve is auto or never, not '{approve}'.")
    settings = Settings()
    chosen = [specs.find(settings.models, name) for name in model] if model else list(specs.portfolio(settings))
    begin, end = clock.parse_as_of(first), clock.parse_as_of(last)
    if policy:
        _policies(settings, chosen, begin, end, policy, jobs, plots, as_json)
        return
    with rails.opened(settings) as opened, _progress(as_json) as say:
        result = loop.run(opened, chosen, begin, end, approve=approve, render=render, progress=say)
    _emit(result, as_json)


def _policies(
    settings: Settings,
    chosen: list[specs.Spec],
    begin: datetime,
    end: datetime,
    names: list[str],
    jobs: int,
    plots: Path | None,
    as_json: bool,
) -> None:
    from tiltyard import rails
    from tiltyard.edge import describe
    from tiltyard.rewind import backtest
    from tiltyard.rewind import policy as policies

    whole = specs.load_portfolio(settings.models)
    tried = [
        policies.current(chosen, whole) if name == policies.CURRENT else policies.load(Path(name), chosen, whole)
        for name in names
    ]
    twice = sorted({one.name for one in tried if [other.name for other in tried].count(one.name) > 1})
    if twice:
        raise BadInput(f"Two policies are called '{twice[0]}'; a policy is named by its file, rename one.")
    folder = plots or settings.reports / "policies"
    with rails.opened(settings) as opened, _progress(as_json) as say:
        result = backtest.run(opened, tried, begin, end, jobs=jobs, plots=folder, progress=say)

    def show() -> None:
        _table(describe.policies(result))
        for line in describe.policies_notes(result):
            out.print(_plain(line), soft_wrap=True)

    _emit(result, as_json, show)


# -- serving ------------------------------------------------------------------------------------------------


@app.command(epilog="Example: tiltyard serve --port 8090 --as-of latest")
def serve(
    host: Annotated[
        str | None, typer.Option(metavar="HOST", help="Where to listen. Default: TILTYARD_SERVE_HOST, or 127.0.0.1.")
    ] = None,
    port: Annotated[int | None, typer.Option(min=1, max=65535, help="Default: TILTYARD_SERVE_PORT, or 8090.")] = None,
    workers: Annotated[int | None, typer.Option(min=1, max=64, help="Processes that serve. Default: 1.")] = None,
    as_of: Annotated[
        str | None,
        typer.Option(
            "--as-of",
            metavar="DATE|latest",
            help="Let the service's clock begin there, for data of the past; latest: the newest published night.",
        ),
    ] = None,
) -> None:
    """Serve every model's predictions over HTTP: champion, previous, light twin, safe default. Ctrl-C ends it."""
    from tiltyard.serve import web

    given = {"serve_host": host, "serve_port": port, "serve_workers": workers}
    for name, value in given.items():
        if value is not None:
            os.environ[f"TILTYARD_{name.upper()}"] = str(value)  # its worker processes read the same settings
    settings = Settings()
    web.run(settings, web.begins(settings, as_of), err.print)


@keys.command("new", epilog="Example: tiltyard keys new billing")
def keys_new(
    name: Annotated[str, typer.Argument(help="Who will use it; limits and log go by this name.", metavar="NAME")],
    as_json: Json = False,
) -> None:
    """Make an API key and show it once; only its SHA-256 goes into TILTYARD_SERVE_KEYS."""
    from tiltyard.serve import access

    result = access.new(name)
    _emit(result, as_json, lambda: out.print(_plain(access.shown(result)), soft_wrap=True))


@app.command(epilog="Example: tiltyard online --as-of 2016-04-02 --afresh")
def online(
    as_of: AsOf = None,
    afresh: Annotated[
        bool,
        typer.Option(
            "--afresh", help="Empty the store first: for an earlier night, or a row that should not be there."
        ),
    ] = False,
    as_json: Json = False,
) -> None:
    """Bring the store of online features up to what is published. The features stage does it every night."""
    from tiltyard import rails
    from tiltyard.prepare import online as store

    with rails.opened() as opened:
        _emit(store.materialise(opened, _as_of(as_of), afresh=afresh), as_json)


Drain = Annotated[bool, typer.Option("--drain", help="Stop when everything that is there has been read.")]


@stream.command("kinesis", epilog="Example: tiltyard stream kinesis ticket-features --drain")
def stream_kinesis(
    name: Annotated[str, typer.Argument(help="Name of the stream.", metavar="STREAM")],
    drain: Drain = False,
    as_json: Json = False,
) -> None:
    """Consume events of a Kinesis stream into the store of online features. Ctrl-C ends it."""
    from tiltyard.online import streams

    made = functools.partial(streams.kinesis, name)
    _emit(streams.run(Settings(), f"kinesis/{name}", made, drain=drain, say=_warn), as_json)


@stream.command("kafka", epilog="Example: tiltyard stream kafka ticket-features --servers localhost:9092")
def stream_kafka(
    topic: Annotated[str, typer.Argument(help="Name of the topic.", metavar="TOPIC")],
    servers: Annotated[str, typer.Option("--servers", metavar="HOST:PORT,…", help="The bootstrap servers.")],
    group: Annotated[str, typer.Option("--group", help="The consumer group.")] = "tiltyard",
    drain: Drain = False,
    as_json: Json = False,
) -> None:
    """Consume events of a Kafka topic into the store of online features. Ctrl-C ends it."""
    from tiltyard.online import streams

    settings = Settings()
    made = functools.partial(streams.kafka, settings, topic, servers, group)
    _emit(streams.run(settings, f"kafka/{topic}", made, drain=drain, say=_warn), as_json)


def _warn(said: str) -> None:
    err.print(f"[yellow]waiting[/] {_plain(said)}")


# -- the request log ----------------------------------------------------------------------------------------


@requests.command("deliver", epilog="Example: tiltyard requests deliver")
def requests_deliver(as_json: Json = False) -> None:
    """Bring what the service has spooled into the lake, exactly once. The shadow stage of every night does it, too."""
    from tiltyard import rails
    from tiltyard.answered import request_log

    with rails.opened() as opened:
        result = request_log.deliver(opened)
    _emit(result, as_json)


@requests.command("show", epilog="Example: tiltyard requests show sla_breach --json")
def requests_show(model: Model, as_of: AsOf = None, as_json: Json = False) -> None:
    """Answers per night and tier, how they turned out per arm, and what the log has lost."""
    from tiltyard import rails
    from tiltyard.answered import arm, request_log
    from tiltyard.edge import describe

    spec = _spec(model)
    at = clock.parse_as_of(as_of) if as_of else clock.now()
    with rails.opened() as opened:
        result = {
            "model": spec.name,
            "nights": request_log.nights(opened, spec.name, at),
            "arms": arm.report(opened, spec, at),
            "log": request_log.delivered(opened),
        }

    def show() -> None:
        if result["nights"]:
            _table(describe.asked(result["nights"]))
        for line in describe.turned_out(result, spec.measure):
            out.print(_plain(line), soft_wrap=True)

    _emit(result, as_json, show)


# -- leakage ------------------------------------------------------------------------------------------------


@leakage.command("replay", epilog="Example: tiltyard leakage replay --model churn --from 2025-05-01 --to 2025-05-28")
def leakage_replay(
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
    """The millisecond test: what predictions were made from, against what the lake says of it today.

    Exit 1 when the past was written over, or when nobody could tell.
    """
    from tiltyard import rails
    from tiltyard.leak import page
    from tiltyard.train import replay as test
    from tiltyard.train import replay_page

    spec = _spec(model)
    if report:
        page.check(report)
    ranges = [(clock.parse_as_of(first), clock.parse_as_of(last))]
    with rails.opened() as opened:
        result = test.run(opened, spec, ranges, snapshot=snapshot, limit=limit)
    if report:
        replay_page.write(result, report)
    _emit(result.as_dict(), as_json, lambda: out.print(_plain(replay_page.lines(result)), soft_wrap=True))
    if result.verdict in ("fail", "untestable"):
        raise typer.Exit(1)


@leakage.command("latency", epilog="Example: tiltyard leakage latency --model churn")
def leakage_latency(
    model: Annotated[str | None, typer.Option("--model", help="The tables that a model stands on.")] = None,
    source: Annotated[str | None, typer.Option("--source", help="The tables of a source.")] = None,
    nights: Annotated[int, typer.Option(min=1, max=366, help="Over so many nights the embargo is learned.")] = 28,
    as_of: AsOf = None,
    as_json: Json = False,
) -> None:
    """How late rows really are: promised, claimed and observed, and the embargo that follows. Draws the nights."""
    from tiltyard import rails
    from tiltyard.edge import describe
    from tiltyard.prepare import latency

    if model and source:
        raise BadInput("Give --model or --source, not both; a model's tables include its source's.")
    settings = Settings()
    with rails.opened(settings) as opened:
        result = latency.look(
            opened,
            model=specs.find(settings.models, model) if model else None,
            source=source,
            as_of=clock.parse_as_of(as_of) if as_of else None,
            nights=nights,
        )
    _emit(result, as_json, lambda: (_table(describe.latencies(result["tables"])), out.print(f"plot: {result['plot']}")))


@leakage.command(
    "audit", epilog="Example: tiltyard leakage audit frame.parquet --label churned --prediction-time at --entity id"
)
def leakage_audit(
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
            "feature. Repeat it.",
            metavar="FEATURE=COL",
        ),
    ] = None,
    planned: Annotated[
        list[str] | None, typer.Option(help="Instants known ahead, like a due date. Repeat it.", metavar="COL")
    ] = None,
    ignore: Annotated[list[str] | None, typer.Option(help="Not to be judged. Repeat it.", metavar="COL")] = None,
    history: Annotated[
        Path | None, typer.Option(help="A log of events or versions of the same entities.", metavar="FILE")
    ] = None,
    as_of_column: Annotated[
        str | None, typer.Option(help="Column of the log: since when its row was known.", metavar="COL")
    ] = None,
    report: Annotated[
        Path | None, typer.Option(help="The HTML page. Default: FRAME.leakage.html, here.", metavar="FILE.html")
    ] = None,
    as_json: Json = False,
) -> None:
    """Find what a table tells that could not have been known yet. Exit 1 when it does, or when nobody could tell."""
    from tiltyard.leak import audit, page

    target = report or Path(f"{frame.stem}.leakage.html")
    page.check(target, [frame, *([history] if history else [])])
    with _progress(as_json) as say:
        found = audit.audit(
            frame,
            label=label,
            prediction_time=prediction_time,
            entity=entity,
            label_time=label_time,
            available_at=audit.declared(available_at or ()),
            planned=planned or (),
            ignore=ignore or (),
            history=history,
            history_as_of=as_of_column,
            progress=say,
            threads=Settings().threads,
        )
    page.write(found, target)
    result = found.as_dict() | {"report": str(target)}
    _emit(result, as_json, lambda: _print_audit(found, target))
    if found.verdict in ("fail", "untestable"):
        raise typer.Exit(1)


def _print_audit(found: Any, target: Path) -> None:
    """The verdict, a line per finding, and where the rest is."""
    from rich.table import Table

    colour = {"pass": "green", "warn": "yellow"}.get(found.verdict, "bold red")
    out.print(f"[{colour}]{found.verdict}[/] {_plain(found.reason)}", soft_wrap=True)
    if found.findings:
        table = Table(box=None, header_style="bold", show_edge=False)
        for title in ("", "feature", "kind", "effect", "interval"):
            table.add_column(title, no_wrap=title != "feature", overflow="fold")
        for one in found.findings:
            between = f"{one.interval[0]:.3g} – {one.interval[1]:.3g}" if one.interval else "exact"
            table.add_row(one.severity, _plain(one.feature), one.kind, f"{one.effect:.3g}", between)
        out.print(table)
        for one in found.findings:
            out.print(f"[bold]{_plain(one.feature)}[/]: {_plain(one.evidence)}", soft_wrap=True)
    for note in found.notes:
        out.print(f"[dim]note[/] {_plain(note)}", soft_wrap=True)
    for place, one in enumerate(found.untested):
        if place == 8:
            out.print(f"[dim]untested[/] … and {len(found.untested) - place} more, in the report")
            break
        what = " ".join(part for part in (one.feature, one.kind) if part != "*") or "all"
        out.print(f"[dim]untested[/] {_plain(f'{what}: {one.why}')}", soft_wrap=True)
    out.print(f"{found.rows:,} rows, {len(found.features):,} features. The page to look at: {_plain(str(target))}")


# -- plumbing -----------------------------------------------------------------------------------------------


def _stage(as_json: bool, work: Callable[[Any, Any], Any]) -> None:
    from tiltyard import rails
    from tiltyard.prepare import features as stage

    with rails.opened() as opened:
        result = work(opened, stage)
    _emit(result, as_json)


def _model_stage(model: str, as_of: str | None, as_json: bool, work: Callable[..., Any]) -> None:
    from tiltyard import rails

    spec, night = _spec(model), _as_of(as_of)
    with rails.opened() as opened:
        result = work(opened, spec, night)
    _emit(result, as_json)


def _spec(model: str) -> specs.Spec:
    return specs.find(Settings().models, model)


def _as_of(text: str | None) -> datetime:
    if text:
        return clock.parse_as_of(text)
    return clock.midnight(clock.now().date())


def _user() -> str:
    import getpass

    return os.environ.get("TILTYARD_USER") or getpass.getuser()


def _emit(result: Any, as_json: bool, human: Callable[[], Any] | None = None) -> None:
    if as_json:
        print(json.dumps(result, default=_json_default, indent=2, allow_nan=False))
    elif human:
        human()
    else:
        _lines(result)


def _json_default(value: Any) -> Any:
    if isinstance(value, Path | timedelta):
        return str(value)
    if hasattr(value, "isoformat"):
        return value.isoformat()
    if hasattr(value, "item"):
        return value.item()
    raise TypeError(f"{type(value).__name__} is not JSON")


def _lines(result: Any, indent: int = 0) -> None:
    for key, value in result.items() if isinstance(result, dict) else enumerate(result):
        label = f"{'  ' * indent}{key}" if isinstance(result, dict) else f"{'  ' * indent}-"
        if isinstance(value, dict | list | tuple) and value:
            out.print(f"[bold]{_plain(label)}[/]")
            _lines(value, indent + 1)
        else:
            out.print(f"[bold]{_plain(label)}[/] {_plain(str(value) if value not in (None, [], {}, ()) else '–')}")


def _table(rows: list[dict[str, Any]]) -> None:
    from rich.table import Table

    table = Table(box=None, header_style="bold")
    for column in rows[0] if rows else ():
        table.add_column(column)
    for row in rows:
        table.add_row(
            *("yes" if value is True else "no" if value is False else _plain(str(value)) for value in row.values())
        )
    out.print(table)


def _plain(text: str) -> str:
    return text.replace("[", "\\[")


@contextmanager
def _progress(quiet: bool) -> Iterator[Callable[[str, float], None]]:
    """A bar on a terminal, plain lines otherwise, on stderr in both cases."""
    if quiet or not err.is_terminal:
        last = [""]

        def plain(label: str, fraction: float) -> None:
            if not quiet and label != last[0]:
                print(f"[{fraction:4.0%}] {label}", file=sys.stderr, flush=True)
                last[0] = label

        yield plain
        return
    columns = (TextColumn("{task.description:<28}"), BarColumn(), TextColumn("{task.percentage:>3.0f}%"))
    with Progress(*columns, TimeElapsedColumn(), TimeRemainingColumn(), console=err) as bar:
        task = bar.add_task("", total=1.0)
        yield lambda label, fraction: bar.update(task, description=label, completed=fraction)


if __name__ == "__main__":
    main()
