"""`online`, `stream`: the store of online features, brought up to date by night and meanwhile."""

import functools
from typing import Annotated

import typer

from tiltyard.cli import options
from tiltyard.cli.options import AsOf, Json
from tiltyard.cli.output import emit, warn
from tiltyard.settings import Settings

PANEL = "Online features"
commands = typer.Typer()
stream = typer.Typer(help="Keep online features up to the minute from a stream.", no_args_is_help=True)
commands.add_typer(
    stream,
    name="stream",
    rich_help_panel=PANEL,
    epilog="Example: tiltyard stream kafka ticket-features --servers localhost:9092",
)

Drain = Annotated[bool, typer.Option("--drain", help="Stop when everything that is there has been read.")]


@commands.command(rich_help_panel=PANEL, epilog="Example: tiltyard online --as-of 2016-04-02 --afresh")
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
    from tiltyard.online import fill

    with rails.opened() as opened:
        summary = fill.materialise(opened, options.night(as_of), afresh=afresh)
    emit(summary.to_json(), as_json)


@stream.command("kinesis", epilog="Example: tiltyard stream kinesis ticket-features --drain")
def kinesis(
    name: Annotated[str, typer.Argument(help="Name of the stream.", metavar="STREAM")],
    drain: Drain = False,
    as_json: Json = False,
) -> None:
    """Consume events of a Kinesis stream into the store of online features. Ctrl-C ends it."""
    from tiltyard.online import streams

    consumer = functools.partial(streams.kinesis, name)
    emit(streams.follow(Settings(), f"kinesis/{name}", consumer, drain=drain, say=warn), as_json)


@stream.command("kafka", epilog="Example: tiltyard stream kafka ticket-features --servers localhost:9092")
def kafka(
    topic: Annotated[str, typer.Argument(help="Name of the topic.", metavar="TOPIC")],
    servers: Annotated[str, typer.Option("--servers", metavar="HOST:PORT,…", help="The bootstrap servers.")],
    group: Annotated[str, typer.Option("--group", help="The consumer group.")] = "tiltyard",
    drain: Drain = False,
    as_json: Json = False,
) -> None:
    """Consume events of a Kafka topic into the store of online features. Ctrl-C ends it."""
    from tiltyard.online import streams

    settings = Settings()
    consumer = functools.partial(streams.kafka, settings, topic, servers, group)
    emit(streams.follow(settings, f"kafka/{topic}", consumer, drain=drain, say=warn), as_json)
