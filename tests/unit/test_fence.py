"""Fences: every claim outdates the one before, and only the newest may commit. A hindcast has its models to itself."""

import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from tiltyard.errors import BadInput, Fenced
from tiltyard.rails import Rails
from tiltyard.settings import ROOT


def test_every_claim_outdates_the_one_before(rails: Rails) -> None:
    with ThreadPoolExecutor(6) as pool:
        tokens = [fence.token for fence in pool.map(lambda _: rails.ledger.claim("key"), range(12))]

    assert sorted(tokens) == list(range(1, 13))


def test_only_the_newest_claim_on_the_same_work_is_held(rails: Rails) -> None:
    old, other = rails.ledger.claim("shadow/a/2016-04-02"), rails.ledger.claim("shadow/b/2016-04-02")
    new = rails.ledger.claim("shadow/a/2016-04-02")
    with pytest.raises(Fenced, match=r"has taken over shadow/a/2016-04-02 \(token 2, this one holds 1\)"), old.held():
        pytest.fail("an outdated claim was held")
    with new.held(), other.held():
        pass


def test_a_hindcast_has_its_models_to_itself_and_gives_them_back(rails: Rails) -> None:
    with rails.ledger.playing(["ant", "bee"]):
        assert rails.ledger.played(["ant", "bee", "cat"]) == {"ant", "bee"}
        with pytest.raises(BadInput, match=r"Another hindcast plays bee at this moment"), rails.ledger.playing(["bee"]):
            pytest.fail("two hindcasts have one model")
        with pytest.raises(BadInput, match=r"A hindcast plays ant, bee at this moment; wait"):
            rails.ledger.require_unplayed(["cat", "bee", "ant"])
        with rails.ledger.playing(["cat"]):
            assert rails.ledger.played(["cat"]) == {"cat"}
        assert rails.ledger.played(["ant", "bee", "cat"]) == {"ant", "bee"}, "whoever was refused took nothing away"
    assert rails.ledger.played(["ant", "bee", "cat"]) == set()
    rails.ledger.require_unplayed(["ant"])


def test_a_hindcast_that_is_killed_gives_its_models_back(rails: Rails) -> None:
    code = (
        "import time; from tiltyard import rails\nwith rails.opened() as opened, opened.ledger.playing(['ant']):\n"
        " print('has it', flush=True); time.sleep(60)"
    )
    settings = rails.settings
    names = {"TILTYARD_HOME": str(settings.home), "TILTYARD_DATABASE_URL": settings.database_url or ""}
    names |= {"TILTYARD_DATABASE_PREFIX": settings.database_prefix, "PYTHONPATH": str(ROOT / "plugins")}
    with subprocess.Popen([sys.executable, "-c", code], env={**os.environ, **names}, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"has it\n"
        assert rails.ledger.played(["ant"]) == {"ant"}
        process.send_signal(signal.SIGKILL)
    deadline = time.monotonic() + 30
    while rails.ledger.played(["ant"]):
        assert time.monotonic() < deadline, "the model is not given back"
        time.sleep(0.05)
