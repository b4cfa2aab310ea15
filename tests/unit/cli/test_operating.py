"""What a person does by hand on the command line: two people, each by a name of their own."""

import json
import re
import subprocess
from pathlib import Path

from tests.unit.cli.test_cli import tiltyard
from tests.unit.edge.test_board import done, promoted
from tiltyard.rails import Rails
from tiltyard.settings import ROOT


def test_two_people_freeze_a_model_of_tier_1(rails: Rails, tmp_path: Path) -> None:
    folder = tmp_path / "of tier 1" / "churn"
    folder.mkdir(parents=True)
    text = (ROOT / "models" / "churn" / "spec.yaml").read_text()
    (folder / "spec.yaml").write_text(re.sub(r"(?m)^tier:.*$", "tier: 1", text))
    done(rails)
    promoted(rails)

    def by(person: str, *words: str) -> subprocess.CompletedProcess[str]:
        where = {"TILTYARD_MODELS": str(folder.parent), "TILTYARD_SOURCES": "subscription"}
        return tiltyard(*words, settings=rails.settings, TILTYARD_USER=person, **where)

    assert by("ann", "operations").stdout == "nothing was ever done by hand\n"
    dry = by("ann", "freeze", "churn", "--reason", "year-end closing", "--dry-run")
    assert dry.stdout == "It would freeze churn; a second person would have to confirm it.\n"
    assert "Missing option '--reason'" in by("ann", "freeze", "churn").stderr
    empty = by("ann", "freeze", "churn", "--reason", " ")
    assert (empty.returncode, empty.stderr.startswith("error Say why, like --reason")) == (2, True)

    asked = by("ann", "freeze", "churn", "--reason", "year-end closing")
    assert "(freeze churn), which ann asked for, waits for a second person until" in asked.stdout
    own = by("Ann", "operations", "approve", "1", "--json")
    assert own.returncode == 2
    assert json.loads(own.stdout)["error"] == "ann asked for operation 1 and cannot confirm it; another person has to."
    second = by("bob", "operations", "approve", "1")
    assert second.stdout == (
        "Ann and bob froze churn on the night of 2025-05-30 (year-end closing): it is scored and watched, and "
        "nothing changes it but a person.\n"
    )
    again = json.loads(by("ann", "freeze", "churn", "--reason", "again", "--json").stdout)
    assert (again["operation"], again["waits"]) == (None, False)
    assert again["sentence"].startswith("churn is frozen since the night of 2025-05-30 by ann (year-end closing)")
    refused = by("ann", "rollback", "churn", "--to", "7", "--reason", "why not")
    assert (refused.returncode, refused.stdout) == (2, "")
    assert "The gate has never promoted version 7 of churn; these may come back: --to default." in refused.stderr
    listed = by("ann", "operations").stdout
    assert "freeze churn, by ann and bob: year-end closing; since the night of 2025-05-30" in listed
