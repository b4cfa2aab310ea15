"""`serve`, `keys`, `requests`: answers over HTTP, who may ask, and the log of what was answered."""

import os
from typing import Annotated

import typer

from tiltyard import clock, private
from tiltyard.cli import options
from tiltyard.cli.options import Json, KnownAsOf, Model
from tiltyard.cli.output import caution, emit, err, say, table
from tiltyard.settings import Settings

PANEL = "Serve"
commands = typer.Typer()
keys = typer.Typer(help="API keys of the service.", no_args_is_help=True)
commands.add_typer(keys, name="keys", rich_help_panel=PANEL, epilog="Example: tiltyard keys new billing")
requests = typer.Typer(help="The log of the answers that were given online.", no_args_is_help=True)
commands.add_typer(
    requests, name="requests", rich_help_panel=PANEL, epilog="Example: tiltyard requests show sla_breach"
)


@commands.command(rich_help_panel=PANEL, epilog="Example: tiltyard serve --port 8090 --as-of latest")
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
    if sentence := private.told(settings.home, settings.landing):
        caution(sentence)
    web.serve(settings, web.begins(settings, as_of), err.print)


@keys.command("new", epilog="Example: tiltyard keys new billing")
def new_key(
    name: Annotated[str, typer.Argument(help="Who will use it. Limits and log go by this name.", metavar="NAME")],
    as_json: Json = False,
) -> None:
    """Make an API key and show it once; only its SHA-256 goes into TILTYARD_SERVE_KEYS."""
    from tiltyard.serve import access

    result = access.new(name)
    emit(result, as_json, lambda: say(result.text()))


@requests.command("deliver", epilog="Example: tiltyard requests deliver")
def deliver_requests(as_json: Json = False) -> None:
    """Bring what the service has spooled into the lake, exactly once. The shadow stage of every night does it, too."""
    from tiltyard import rails
    from tiltyard.answered import request_log

    with rails.opened() as opened:
        result = request_log.deliver(opened)
    emit(result, as_json)


@requests.command("show", epilog="Example: tiltyard requests show sla_breach --json")
def show_requests(model: Model, as_of: KnownAsOf = None, as_json: Json = False) -> None:
    """Show answers per night and tier, how they turned out per arm, and what the log has lost."""
    from tiltyard import rails
    from tiltyard.answered import arm, request_log
    from tiltyard.answered.report import RequestsReport
    from tiltyard.edge import describe

    spec = options.spec(model)
    at = options.instant(as_of) or clock.now()
    with rails.opened() as opened:
        report = RequestsReport(
            model=spec.name,
            nights=tuple(request_log.nights(opened, spec.name, at)),
            arms=arm.report(opened, spec, at),
            log=request_log.delivered(opened),
        )

    def show() -> None:
        if report.nights:
            table(describe.request_nights(report.nights))
        for line in describe.turned_out(report, spec.target.measure):
            say(line)

    emit(report, as_json, show)
