"""No text that leaves a process carries a secret: values of the environment, and what a driver quotes of others."""

import json
import logging
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from urllib.parse import quote

import pytest

from tiltyard import redaction
from tiltyard.errors import BadInput
from tiltyard.settings import Settings

CANARY = "ca'nary\\of/the@mine"


@pytest.fixture
def handler() -> Iterator[list[str]]:
    """What is logged, as it is printed, with redaction in force."""
    make, hook = logging.getLogRecordFactory(), sys.excepthook
    redaction.install()
    redaction.install()
    printed: list[str] = []

    class Kept(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            printed.append(self.format(record))

    kept = Kept()
    logging.getLogger("tiltyard").addHandler(kept)
    yield printed
    logging.getLogger("tiltyard").removeHandler(kept)
    logging.setLogRecordFactory(make)
    sys.excepthook = hook


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("postgresql://me:pass@host:5432/lake is away", "postgresql://me:***@host:5432/lake is away"),
        ("write it like mailto://user:secret@host", "write it like mailto://user:secret@host"),
        ("redis://:pass@host", "redis://:***@host"),
        ("host=a user=me password=pass port=1", "host=a user=me password=*** port=1"),
        ("connection to \"password='it''s' host=b\" failed", "connection to \"password=***'s' host=b\" failed"),
        ('secret_access_key = "pass word", region', "secret_access_key = ***, region"),
        ('{"password": "pa\\"ss", "user": "me"}', '{"password": ***, "user": "me"}'),
        ("PGPASSWORD=pass psql", "PGPASSWORD=*** psql"),
        ("http://127.0.0.1:8080/ shows it", "http://127.0.0.1:8080/ shows it"),
        ("passwords in passwords.json; ask ann@example.org", "passwords in passwords.json; ask ann@example.org"),
        ("s3://bucket/key?X=1 and 12:30", "s3://bucket/key?X=1 and 12:30"),
    ],
)
def test_what_stands_where_a_password_stands_is_taken_out(text: str, shown: str) -> None:
    assert redaction.redacted(text) == shown
    assert str(BadInput(text)) == shown


def test_secrets_are_the_variables_that_are_called_so_and_passwords_in_addresses() -> None:
    environment = {
        "AWS_SECRET_ACCESS_KEY": CANARY,
        "AIRFLOW_CONN_DESK": "http://desk:of-the%40desk@host/x",
        "ALERTS_TOKEN": "token-1",
        "TILTYARD_SERVE_KEYS": "billing:0123456789",
        "TILTYARD_DATABASE_URL": "postgresql://me:it's an address@host:5432/",
        "TILTYARD_ONLINE_URL": "redis://host?password=behind-a-mark",
        "DESK_DSN": "host=a password='of a dsn'",
        "DESK_APIKEY": "apikey-1",
        "PGPASSWORD": "x",
        "PATH": "/usr/bin",
        "KEYBOARD": "qwertz",
        "MONKEY": "a monkey",
    }
    assert redaction.secrets(environment) == {
        CANARY, "of-the%40desk", "of-the@desk", "token-1", "billing:0123456789", "it's an address", "behind-a-mark",
        "of a dsn", "apikey-1",
    }  # fmt: skip


def test_a_value_of_the_environment_is_found_wherever_it_stands(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", CANARY)
    assert redaction.redacted(f"the signature of {CANARY} is wrong") == "the signature of *** is wrong"
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "another-value")
    assert redaction.redacted("another-value") == "***", "what is read is the environment as it is now"


@pytest.mark.parametrize(
    "spell",
    [json.dumps, repr, ascii, quote, lambda value: quote(value, safe=""), lambda value: value.replace("'", "''"),
     lambda value: f"connect to postgresql://me:{value}@host"],
)  # fmt: skip
@pytest.mark.parametrize("secret", [CANARY, "ca\"na'ry\\of the @mine é", "ca'nary of\nmine"])
@pytest.mark.parametrize("variable", ["DESK_PASSWORD", "DESK_URL"])
def test_a_value_is_found_however_it_is_spelled(
    monkeypatch: pytest.MonkeyPatch, spell: Callable[[str], str], secret: str, variable: str
) -> None:
    """A library quotes what it was given as JSON, as Python, as SQL or as an address has it."""
    monkeypatch.setenv(variable, secret if variable == "DESK_PASSWORD" else f"postgresql://me:{secret}@host:1/lake")
    said = redaction.redacted(f"it is {spell(secret)}, and that is all")
    assert said.startswith("it is ") and said.endswith(", and that is all")
    assert "***" in said and "nary" not in said


def test_a_log_says_nothing_of_it(handler: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", CANARY)
    log = logging.getLogger("tiltyard.anything")
    log.warning("it is %s", CANARY)
    log.warning(f"100 % of {CANARY}")
    log.warning("it is %s", ValueError(CANARY))
    log.warning("it is %(key)s", {"key": CANARY})
    log.warning("password=%s of %s", "short", "ann")
    try:
        raise ValueError(f"no {CANARY}")
    except ValueError:
        log.exception("it failed")
    assert handler[:4] == ["it is ***", "100 % of ***", "it is ***", "it is ***"]
    assert handler[4] == "password=*** of ann", "the words around an argument stay as they are"
    assert "ValueError: no ***" in handler[-1]
    assert CANARY not in "".join(handler)


COMMANDS = ("status", "verify", "ingest", "features", "train churn", "shadow churn",
            "promote churn", "drift churn", "alerts list", "operations", "requests deliver", "online",
            "hindcast --from 2025-01-01 --to 2025-01-02", "status churn --json")  # fmt: skip
SCRIPT = """
import logging, sys
from tiltyard.cli import entry, main
logging.basicConfig(level=logging.INFO)
for words in sys.argv[1:]:
    sys.argv = ["tiltyard", *words.split()]
    try:
        main()
    except SystemExit as end:
        print("==", words, end.code, flush=True)
def broken():
    raise ValueError("in the end of " + __import__("os").environ["AWS_SECRET_ACCESS_KEY"])
entry._look_at_settings = broken
main()
"""


def test_no_command_tells_a_secret_where_what_it_needs_is_away(settings: Settings) -> None:
    """Database, S3 and Redis are away; then the command line itself breaks, with the secret in its error."""
    words = {"sql": "canary-of-the-database", "s3": "canary-of-the-bucket", "redis": "canary-of-the-store"}
    environment = {
        **os.environ,
        "TILTYARD_HOME": str(settings.home),
        "TILTYARD_DATABASE_URL": f"postgresql://me:{words['sql']}@127.0.0.1:1",
        "TILTYARD_LAKE_DATA": "s3://bucket/lake",
        "TILTYARD_S3_ENDPOINT": "127.0.0.1:1",
        "TILTYARD_ONLINE_URL": f"redis://:{words['redis']}@127.0.0.1:1",
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": words["s3"],
    }
    run = subprocess.run([sys.executable, "-c", SCRIPT, *COMMANDS], env=environment, capture_output=True, text=True)
    said = run.stdout + run.stderr
    ended = [line for line in run.stdout.splitlines() if line.startswith("== ")]
    assert len(ended) == len(COMMANDS), said
    assert "Try tiltyard" not in said, "each is a command, and comes to what it needs"
    assert [line for line in ended if line.endswith((" 0", " None"))] == [], "each needs what is away"
    assert "ValueError: in the end of ***" in said
    assert [word for word in words.values() if word in said] == []
    assert [file for file in settings.home.rglob("*") if file.is_file()
            and any(word.encode() in file.read_bytes() for word in words.values())] == []  # fmt: skip
