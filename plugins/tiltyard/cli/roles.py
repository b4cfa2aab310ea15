"""`roles`: a login of its own for each part of the project, with what it needs and no more."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Annotated

import typer

from tiltyard.cli.options import Json
from tiltyard.cli.output import caution, emit, say
from tiltyard.words import counted, listed

if TYPE_CHECKING:
    from tiltyard.roles import RolesState

PANEL = "All models together"
commands = typer.Typer()


@commands.command(rich_help_panel=PANEL, epilog="Example: tiltyard roles --apply")
def roles(
    apply: Annotated[bool, typer.Option("--apply", help="Do it; without, it is only said.")] = False,
    as_json: Json = False,
) -> None:
    """Make the roles of the database, as its owner: nightly, pages, serving, airflow and mlflow, with what each may do.
    What was granted besides is taken back. Passwords are read from TILTYARD_NIGHTLY_PASSWORD and so on."""
    from tiltyard import rails
    from tiltyard import roles as database
    from tiltyard.settings import ROLES, Settings

    settings = Settings()
    database.refuse_role(settings)
    if apply:  # the grants are about the tables of ledger and lake
        with rails.opened(settings, lake_at_once=not database.has_lake(settings)):
            pass
    passwords = {part: text for part in ROLES if (text := os.environ.get(database.variable(part)))}
    state = database.settle(settings, passwords, apply=apply)
    emit(state, as_json, lambda: _show(state))
    if state.without_password:
        caution(f"No password is set here for {listed(list(state.without_password))}; each stays as it was.")
    if state.not_there:
        caution(f"Not there yet: {listed(list(state.not_there))}. Once it is, run tiltyard roles --apply once more.")


def _show(state: RolesState) -> None:
    for step in state.steps:
        say(f"  {': '.join(filter(None, (step.database, step.role)))}: {step.what}")
    if not state.steps:
        say("The roles are as they should be.")
    elif state.is_applied:
        say(f"{counted(len(state.steps), 'step')} done.")
    else:
        say(f"{counted(len(state.steps), 'step')} to do; tiltyard roles --apply does them.")
    if state.passwords:
        say(f"Passwords {'set' if state.is_applied else 'to set'}: {listed(list(state.passwords))}.")
