"""Who can log in to Airflow and answer there, and who of them may answer a question: so that a form can say it."""

import logging
import os
import re
from collections.abc import Sequence
from datetime import UTC, datetime

from tiltyard.settings import Settings
from tiltyard.words import HINDCAST, UNKNOWN, Who, listed, person

log = logging.getLogger(__name__)

NOBODY = "airflow"
"""Who starts what no person has started, as Airflow calls it."""
HOW_TO = "docs/how-to/approve-a-promotion.md"
_LOOKS = {"viewer", "public"}
"""Roles that answer nothing."""
_NUMBERS = ("none", "one", "two")
_CLOSES = re.compile(r"\*\*Closes (\d{4}-\d\d-\d\d \d\d:\d\d) UTC\.")


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
    engine = postgres.engine(settings, "airflow")
    try:
        with engine.connect() as connection:
            rows = [(str(name), str(role)) for name, role in connection.execute(query)]
    except sa.exc.SQLAlchemyError as error:
        log.warning("Airflow's logins are not known: %s", error)
        return None
    return tuple(sorted({name for name, role in rows if role.casefold() not in _LOOKS}))


def who_may(
    people: Sequence[str] | None,
    asked_by: Sequence[str],
    logins: Sequence[str] | None,
    who: Who = person,
    needed: int = 1,
    released_by: Sequence[str] = (),
) -> str:
    """Who may answer, in sentences. Where fewer can than have to, that is said, and how to go on.

    `people`: those whom `approvers` names, without whoever asked or released; None: anybody but them. `asked_by`: who
    asked, or had it trained. `logins`: who can log in here; None where that is not known. `who`: which names are one
    person's. `needed`: how many different people have to answer. `released_by`: who released what it is made of.
    """
    asked = sorted({name.strip() for name in asked_by if name.strip() and name.strip() not in (NOBODY, HINDCAST)})
    released = [name for name in released_by if name not in (NOBODY, HINDCAST, *asked)]
    if UNKNOWN in released:
        return f"**No approval counts**: it is not known who released what it is made of ({HOW_TO})."
    barred = {who(name) for name in (*asked, *released, HINDCAST)}
    nor = [f"{' or '.join(asked)}, who asked for it"] if asked else []
    nor += [f"{' or '.join(released)}, who released what it is made of"] if released else []
    not_these = f"Not {'; nor '.join(nor)}." if nor else ""
    several = f"{needed} different people have to answer, each one form." if needed > 1 else ""
    there = None if logins is None else {who(name): name for name in logins if who(name) not in barred}
    if people is None:
        may = None if there is None else [*there.values()]
    else:
        may = [name for name in people if there is None or who(name) in there]
    if people is not None and not people:
        parts = [several, "These may answer: nobody now; see approvers in models/portfolio.yaml.", not_these]
    elif may is None:
        parts = [several, f"These may answer: {'anybody else' if nor else 'anybody'}.", not_these]
    elif not may:
        named = f"those who may have no login: {listed(people)}" if people else "there is no other login"
        parts = [f"**Nobody can answer it here**: {named}.", several, not_these, _ways_out(needed, asked, released)]
    elif len(may) < needed:
        only = f"**Only {_NUMBERS[len(may)]} of the {_NUMBERS[needed]} who are needed can answer it here**"
        parts = [f"{only}: {listed(may)}.", several, not_these, _ways_out(needed, asked, released)]
    else:
        parts = [several, f"These may answer: {listed(people or may)}.", not_these]
    return " ".join(filter(None, parts))


def _ways_out(needed: int, asked: Sequence[str], released: Sequence[str]) -> str:
    """How to go on where fewer can answer than have to."""
    ways = ["Give somebody else a login first"]
    if needed > 1:
        ways.append("write approvals: 1 under gate in the model's spec")
    if asked and (needed > 1 or released):
        ways.append("let the schedule start the night, for which nobody has asked then")
    return f"{', or '.join(ways)} ({HOW_TO})."


def conditions(until: datetime, who: str, others: Sequence[str] = ()) -> str:
    """What holds of a question, in Markdown, as the head of its form: until when, what silence means, who may answer
    (`who_may`), who else challenges. `closes` and `answering` read it back."""
    lines = [f"**Closes {until:%Y-%m-%d %H:%M} UTC. Silence is a no**: the champion stays.", who]
    if others:
        lines.append(f"Other challengers, which go on in shadow: {'; '.join(others)}.")
    return "\n\n".join(lines)


def closes(body: str) -> datetime | None:
    """When a form closes, as its head says; None where it does not say."""
    found = _CLOSES.match(body)
    return datetime.strptime(found[1], "%Y-%m-%d %H:%M").replace(tzinfo=UTC) if found else None


def answering(body: str) -> str:
    """Who may answer a form, as its head says, without marks; empty where it does not say."""
    head, _, rest = body.partition("\n\n")
    whole = _CLOSES.match(head) and head.endswith(": the champion stays.")
    return rest.partition("\n\n")[0].replace("**", "") if whole else ""
