"""A form says who may answer it, and how to go on where nobody of those who can log in could."""

from collections.abc import Sequence
from datetime import UTC, datetime

import pytest
import sqlalchemy as sa

from tiltyard import postgres
from tiltyard.edge import airflow_settings, logins
from tiltyard.rails import Rails

LAPTOP = tuple(airflow_settings.ROLES)
TWO = "2 different people have to answer, each one form."
WAYS_OUT = (
    "Give somebody else a login first, or write approvals: 1 under gate in the model's spec, or let the schedule start "
    f"the night, for which nobody has asked then ({logins.HOW_TO})."
)


@pytest.mark.parametrize(
    ("people", "asked_by", "there", "says"),
    [
        (None, ["admin", "admin"], LAPTOP, "These may answer: approver. Not admin, who asked for it."),
        (None, ["approver"], LAPTOP, "These may answer: admin. Not approver, who asked for it."),
        (None, [logins.NOBODY], LAPTOP, "These may answer: admin, approver."),
        (None, ["Admin ", "ann"], None, "These may answer: anybody else. Not Admin or ann, who asked for it."),
        (None, [], None, "These may answer: anybody."),
        (("bob", "cid"), ["ann"], ("ann", "Bob"), "These may answer: bob, cid. Not ann, who asked for it."),
        (("bob",), [logins.NOBODY], None, "These may answer: bob."),
        ((), ["ann"], LAPTOP, "These may answer: nobody now; see approvers in models/portfolio.yaml. Not ann, who "
         "asked for it."),
        (None, ["admin"], ("admin",), "**Nobody can answer it here**: there is no other login. Not admin, who asked "
         f"for it. Give somebody else a login first ({logins.HOW_TO})."),
        (("bob",), ["ann"], LAPTOP, "**Nobody can answer it here**: those who may have no login: bob. Not ann, who "
         f"asked for it. Give somebody else a login first ({logins.HOW_TO})."),
    ],
)  # fmt: skip
def test_who_may_answer_is_said_and_whether_they_can(
    people: Sequence[str] | None, asked_by: Sequence[str], there: Sequence[str] | None, says: str
) -> None:
    assert logins.who_may(people, asked_by, there) == says


def test_who_a_hindcast_is_has_asked_for_nothing_and_can_answer_nothing() -> None:
    assert logins.who_may(None, ["admin", "hindcast"], LAPTOP) == (
        "These may answer: approver. Not admin, who asked for it."
    )
    assert logins.who_may(None, ["hindcast"], ("hindcast", "ann")) == "These may answer: ann."


@pytest.mark.parametrize(
    ("people", "asked_by", "there", "says"),
    [
        (None, ["admin"], (*LAPTOP, "ann"), f"{TWO} These may answer: approver, ann. Not admin, who asked for it."),
        (None, [logins.NOBODY], LAPTOP, f"{TWO} These may answer: admin, approver."),
        (None, ["admin"], None, f"{TWO} These may answer: anybody else. Not admin, who asked for it."),
        (None, ["admin"], LAPTOP, "**Only one of the two who are needed can answer it here**: approver. "
         f"{TWO} Not admin, who asked for it. {WAYS_OUT}"),
        (("bob", "cid"), ["ann"], ("bob", "ann"), "**Only one of the two who are needed can answer it here**: bob. "
         f"{TWO} Not ann, who asked for it. {WAYS_OUT}"),
        (("bob",), ["ann"], None, "**Only one of the two who are needed can answer it here**: bob. "
         f"{TWO} Not ann, who asked for it. {WAYS_OUT}"),
        (None, ["admin"], ("admin",), f"**Nobody can answer it here**: there is no other login. {TWO} Not admin, who "
         f"asked for it. {WAYS_OUT}"),
    ],
)  # fmt: skip
def test_where_two_have_to_answer_that_is_said_and_whether_two_can(
    people: Sequence[str] | None, asked_by: Sequence[str], there: Sequence[str] | None, says: str
) -> None:
    assert logins.who_may(people, asked_by, there, needed=2) == says


@pytest.mark.parametrize(
    ("asked_by", "released_by", "says"),
    [
        (["airflow"], ["root"], "These may answer: admin, approver. Not root, who released what it is made of."),
        (["admin"], ["admin"], "These may answer: approver. Not admin, who asked for it."),
        (["admin"], ["airflow"], "These may answer: approver. Not admin, who asked for it."),
        (["approver"], ["admin"], "**Nobody can answer it here**: there is no other login. Not approver, who asked for "
         "it; nor admin, who released what it is made of. Give somebody else a login first, or let the schedule start "
         f"the night, for which nobody has asked then ({logins.HOW_TO})."),
        (["admin"], ["unknown"], "**No approval counts**: it is not known who released what it is made of "
         f"({logins.HOW_TO})."),
    ],
)  # fmt: skip
def test_whoever_released_it_is_named_beside_whoever_asked(
    asked_by: Sequence[str], released_by: Sequence[str], says: str
) -> None:
    assert logins.who_may(None, asked_by, LAPTOP, released_by=released_by) == says


def test_the_head_of_a_form_is_read_back_as_it_was_written() -> None:
    until = datetime(2025, 5, 31, 2, 14, tzinfo=UTC)
    who = logins.who_may(None, ["admin"], LAPTOP, needed=2)
    for others in ((), ("v3 (hold)",)):
        body = f"{logins.conditions(until, who, others)}\n\nEvidence"
        assert (logins.closes(body), logins.answering(body)) == (until, who.replace("**", ""))
    assert (logins.closes("Evidence"), logins.answering("Evidence")) == (None, ""), "a form of somebody else"


def test_the_logins_of_make_up_are_two_of_which_both_can_answer(rails: Rails, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AIRFLOW__CORE__AUTH_MANAGER", raising=False)
    assert logins.known(rails.settings) is None
    for name, value in airflow_settings.airflow_env(rails.settings).items():
        if name.startswith("AIRFLOW__CORE__"):
            monkeypatch.setenv(name, value)
    assert logins.known(rails.settings) == ("admin", "approver")
    monkeypatch.setenv("AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS", "ann:op,bob:viewer")
    assert logins.known(rails.settings) == ("ann",), "who only looks answers nothing"


def test_the_logins_of_airflows_user_database_are_those_that_are_active(
    rails: Rails, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRFLOW__CORE__AUTH_MANAGER", "airflow.providers.fab.auth_manager.FabAuthManager")
    assert logins.known(rails.settings) is None, "there is no such database"
    engine = sa.create_engine(postgres.url(rails.settings, "airflow"), poolclass=sa.NullPool)
    with engine.begin() as connection:
        for statement in (
            "create table ab_user (id int, username text, active boolean)",
            "create table ab_role (id int, name text)",
            "create table ab_user_role (user_id int, role_id int)",
            "insert into ab_user values (1, 'admin', true), (2, 'bob', true), (3, 'left', false), (4, 'looks', true)",
            "insert into ab_role values (1, 'Admin'), (2, 'User'), (3, 'Viewer')",
            "insert into ab_user_role values (1, 1), (1, 3), (2, 2), (3, 2), (4, 3)",
        ):
            connection.execute(sa.text(statement))
    assert logins.known(rails.settings) == ("admin", "bob")
