"""Who can log in to Airflow and answer there, and who of them may answer a question: so that a form can say it."""

import logging
import os
from collections.abc import Sequence

from tiltyard.settings import Settings
from tiltyard.words import Who, person

log = logging.getLogger(__name__)

NOBODY = "airflow"
"""Who starts what no person has started, as Airflow calls it."""
HOW_TO = "docs/how-to/approve-a-promotion.md"
_LOOKS = {"viewer", "public"}
"""Roles that answer nothing."""


def known(settings: Settings) -> tuple[str, ...] | None:
    """The names under which somebody can log in here and answer; None where Airflow's auth manager keeps them
    elsewhere, as in a directory."""
    manager = os.environ.get("AIRFLOW__CORE__AUTH_MANAGER", "").rpartition(".")[2]
    if manager == "SimpleAuthManager":
        users = os.environ.get("AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS", "").split(",")
        pairs = [user.strip().split(":") for user in users if ":" in user]
        return tuple(name for name, role, *_ in pairs if role.casefold() not in _LOOKS)
    return _in_database(settings) if manager == "FabAuthManager" else None


def _in_database(settings: Settings) -> tuple[str, ...] | None:
    """The users that Airflow's user database has; None where it cannot be asked, which is logged."""
    import sqlalchemy as sa  # seconds, at every parse of a DAG file

    from tiltyard import postgres

    query = sa.text(
        "select distinct u.username, r.name from ab_user u join ab_user_role ur on ur.user_id = u.id"
        " join ab_role r on r.id = ur.role_id where u.active"
    )
    engine = sa.create_engine(postgres.url(settings, "airflow"), poolclass=sa.NullPool)
    try:
        with engine.connect() as connection:
            rows = [(str(name), str(role)) for name, role in connection.execute(query)]
    except sa.exc.SQLAlchemyError as error:
        log.warning("Airflow's logins are not known: %s", error)
        return None
    return tuple(sorted({name for name, role in rows if role.casefold() not in _LOOKS}))


def who_may(
    people: Sequence[str] | None, asked_by: Sequence[str], logins: Sequence[str] | None, who: Who = person
) -> str:
    """Who may answer, in sentences. Where nobody can, that is said, and how to go on.

    `people`: those whom `approvers` names, without whoever asked; None: anybody but whoever asked. `asked_by`: who
    asked, or had it trained. `logins`: who can log in here; None where that is not known. `who`: which names are one
    person's.
    """
    asked = sorted({name.strip() for name in asked_by if name.strip() and name.strip() != NOBODY})
    barred = {who(name) for name in asked}
    not_these = f" Not {' or '.join(asked)}, who asked for it." if asked else ""
    if people is not None and not people:
        return f"These may answer: nobody now; see approvers in models/portfolio.yaml.{not_these}"
    if logins is None:
        named = ", ".join(people) if people is not None else "anybody else" if asked else "anybody"
        return f"These may answer: {named}.{not_these}"
    there = {who(name): name for name in logins if who(name) not in barred}
    may = [*there.values()] if people is None else [name for name in people if who(name) in there]
    if may:
        return f"These may answer: {', '.join(may if people is None else people)}.{not_these}"
    named = "there is no other login" if people is None else f"those who may have no login: {', '.join(people)}"
    return f"**Nobody can answer it here**: {named}.{not_these} Give somebody else a login first ({HOW_TO})."
