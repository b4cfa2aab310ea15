"""Arguments and options that several commands have, and how their texts are read."""

import getpass
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Annotated

import typer

from tiltyard import clock, release
from tiltyard import spec as specs
from tiltyard.cli.output import print_error
from tiltyard.errors import BadInput
from tiltyard.settings import Settings
from tiltyard.words import line

if TYPE_CHECKING:
    from tiltyard.rails import Rails

Json = Annotated[bool, typer.Option("--json", help="Print one JSON document instead of text.")]
Model = Annotated[str, typer.Argument(help="Name of a model: a folder under models/.", metavar="MODEL")]
ModelOrAll = Annotated[str | None, typer.Argument(help="One model; default: the portfolio.", metavar="[MODEL]")]
AsOf = Annotated[
    str | None,
    typer.Option(
        "--as-of", metavar="DATE", help="The night: the end of its data interval, UTC. Default: the last midnight."
    ),
]
HourAsOf = Annotated[
    str | None,
    typer.Option(
        "--as-of",
        "--night",
        metavar="DATE",
        help="The night: the end of its data interval, UTC; of hourly models also an hour, like 2016-04-02T07:00Z. "
        "Default: the last midnight.",
    ),
]
ScoredAsOf = Annotated[
    str | None,
    typer.Option("--as-of", metavar="DATE", help="The night, UTC. Default: the model's newest."),
]
MeasuredAsOf = Annotated[
    str | None,
    typer.Option("--as-of", metavar="DATE", help="The night, UTC. Default: the newest whose latencies were measured."),
]
KnownAsOf = Annotated[
    str | None,
    typer.Option("--as-of", metavar="DATE", help="What was known then, UTC. Default: what is known now."),
]
GovernedAsOf = Annotated[
    str | None,
    typer.Option("--as-of", metavar="DATE", help="The night, UTC. Default: the newest that the governor decided on."),
]
AuditedAsOf = Annotated[
    str | None,
    typer.Option("--as-of", metavar="DATE", help="The night, UTC. Default: the newest that was audited."),
]


def instant(text: str | None) -> datetime | None:
    """The `as_of` that an option gives; None where it was left out. Raises BadInput for what is no date."""
    return clock.parse_as_of(text) if text else None


def asked_night(text: str | None) -> datetime | None:
    """The `as_of` of the night that an option names; None where it was left out. Raises BadInput for what is no
    midnight, and for one that is still to come."""
    return _closed(clock.parse_night(text)) if text else None


def night(text: str | None) -> datetime:
    """The `as_of` of the night that an option names; without one the last midnight, UTC. Raises BadInput for what is no
    midnight."""
    return asked_night(text) or clock.midnight(clock.now().date())


def hour(text: str | None) -> datetime:
    """The `as_of` of the night or the hour that an option names; without one the last midnight, UTC. Raises BadInput
    for what is neither."""
    return _closed(clock.parse_hour(text)) if text else clock.midnight(clock.now().date())


def _closed(as_of: datetime) -> datetime:
    return clock.require_closed(as_of, clock.now())


def spec(name: str) -> specs.Spec:
    """The spec in force of a model by its name. Raises BadInput, naming the models there are."""
    return specs.find(release.in_force(Settings()).models, name)


def chosen(name: str | None, settings: Settings) -> tuple[specs.Spec, ...]:
    """The model of that name; without one the models that run here."""
    return (specs.find(settings.models, name),) if name else specs.portfolio(settings)


@contextmanager
def opened(*, sources: Sequence[str] = ()) -> Iterator["Rails"]:
    """The rails for work on a night: what is acceptable of the checkout is put in force first, and what is refused is
    said on the terminal. Raises BadInput, before anything is built, where nothing of any of `sources` has landed.
    """
    from tiltyard import rails
    from tiltyard.cli import landed
    from tiltyard.prepare import releasing

    with rails.opened(Settings()) as checkout:
        landed.require(checkout, sources)
        in_force, accepted = releasing.in_force(checkout, clock.now(), by=user())
        for text in accepted.refused:
            print_error(str(text))
        yield in_force


def user() -> str:
    """Who sits here, for the ledger: TILTYARD_USER, or else the login on this machine."""
    return line(os.environ.get("TILTYARD_USER") or getpass.getuser())


def duration(option: str, text: str) -> timedelta:
    """A length of time as an option has it. Raises BadInput, naming the option."""
    try:
        return clock.parse_duration(text)
    except ValueError as error:
        raise BadInput(f"{option}: {error}.") from None
