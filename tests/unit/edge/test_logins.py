"""A form says who may answer it, and how to go on where nobody of those who can log in could."""

from collections.abc import Sequence

import pytest
import sqlalchemy as sa

from tiltyard import postgres
from tiltyard.edge import airflow_settings, logins
from tiltyard.rails import Rails

LAPTOP = tuple(airflow_settings.ROLES)


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
