"""The page that is approved: the same bytes for the same record, nothing that runs, nothing that is not escaped."""

import hashlib
import json
import re
from pathlib import Path
from typing import Any

import pytest

from tests.unit.test_pairs import TONIGHT, drawn, spec_of
from tiltyard import target as targets
from tiltyard.judge import evidence_page, gate, pairs, promotion

GOLDEN = Path(__file__).parents[1] / "golden" / "ledger"


@pytest.fixture(scope="module")
def record() -> dict[str, Any]:
    spec = spec_of()
    rows = drawn()
    known = pairs.Known(2, gate.Missing("size", 0.1, 0.12), 3.0, 1.5, gate.Replayed("pass", "on this night"))
    evidence, kept = pairs.gather(spec, TONIGHT, rows, 2, 1, known)
    verdict = gate.decide(evidence, spec.gate, 20)
    kept |= {"criteria": [vars(criterion) for criterion in verdict.criteria], "reasons": verdict.reasons}
    kept |= {"mean": verdict.mean, "low": verdict.low, "high": verdict.high}
    kept["drawn"] = pairs.picture(spec, evidence, rows, 2, 1)
    kept["promise"] = {
        "owner": "desk",
        "tier": 1,
        "approvals": 2,
        "policy": spec.gate.model_dump(mode="json"),
        "trained_on": "2016-03-01",
        "trained_by": "ada",
        "training": {"rows": 4000, "reasons": ["drift"]},
    }
    kept["digest"] = promotion.digest(kept)
    return kept


def shuffled(value: Any) -> Any:
    """As PostgreSQL gives JSON back: its keys in another order."""
    if isinstance(value, dict):
        return {name: shuffled(value[name]) for name in sorted(value, reverse=True)}
    return [shuffled(part) for part in value] if isinstance(value, list) else value


def test_the_same_record_gives_the_same_bytes(record: dict[str, Any]) -> None:
    page = evidence_page.draw(record)
    assert evidence_page.draw(json.loads(json.dumps(shuffled(record)))) == page


def test_a_page_that_was_approved_can_be_drawn_again() -> None:
    """Records in ledgers name the SHA-256 of their page: what draws them may change only in what they do not hold."""
    rows = [row for path in GOLDEN.glob("*/decision.json") for row in json.loads(path.read_text(encoding="utf-8"))]
    records = [row["evidence"] for row in rows if "page" in row["evidence"]]
    assert records
    for record in records:
        assert hashlib.sha256(evidence_page.draw(record).encode()).hexdigest() == record["page"]["sha256"]


def test_another_record_gives_other_bytes(record: dict[str, Any]) -> None:
    page = evidence_page.draw(record)
    for change in ({"digest": "0" * 64}, {"mean": 0.5}, {"night": "2016-03-14"}, {"immature": 7}):
        assert evidence_page.draw(record | change) != page


def test_it_needs_nothing_and_runs_nothing(record: dict[str, Any]) -> None:
    page = evidence_page.draw(record)
    assert not re.search(r"<script|\bon\w+=|javascript:|<iframe|<link|<object|@import", page, re.IGNORECASE)
    fetched = re.findall(r"(?:\bsrc|\bhref|url\()\s*=?\s*[\"']?([^\"')\s>]+)", page)
    assert all(target.startswith("#") for target in fetched), "links point into the page itself"
    assert page.count("<svg") == 5
    ids = re.findall(r'<clipPath id="([^"]+)"', page)
    assert len(set(ids)) == len(ids), "two pictures do not share an id"


def test_whatever_comes_from_data_or_people_is_escaped(record: dict[str, Any]) -> None:
    bad = "<script>alert(1)</script>$x^{"
    hostile = json.loads(json.dumps(record))
    hostile["against"] = hostile["model"] = bad
    hostile["promise"] |= {"owner": bad, "trained_by": bad}
    hostile["promise"]["training"]["reasons"] = [bad]
    hostile["criteria"][0] |= {"name": bad, "value": bad, "limit": bad, "reason": bad, "status": bad}
    hostile["drawn"]["slices"][1]["name"] = bad
    page = evidence_page.draw(hostile)
    assert "<script" not in page.lower()
    assert page.count("&lt;script") >= 9


def test_it_says_what_the_gate_asked_and_who_may_not_approve(record: dict[str, Any]) -> None:
    page = evidence_page.draw(record)
    for criterion in record["criteria"]:
        assert f"<td>{criterion['name']}</td>" in page
    for text in ("Two people have to approve", "ada", record["digest"], "max_slice_loss 0.02", "2016-03-13"):
        assert text in page


def test_a_record_with_little_in_it_is_drawn_too(record: dict[str, Any]) -> None:
    """One night, no slices, nothing known early: whatever the gate's policy allows has a page."""
    spec = spec_of(slices=())
    rows = drawn()
    rows = rows[rows["night"] == rows["night"].min()]
    evidence, kept = pairs.gather(spec, TONIGHT, rows, 2, None)
    slim = record | kept | {"drawn": pairs.picture(spec, evidence, rows, 2, None)}
    assert evidence_page.draw(slim).count("<svg") == 5


def test_the_outcome_of_each_arm_online_is_shown_where_there_is_one(record: dict[str, Any]) -> None:
    page = evidence_page.draw(record)
    assert "answers given online" not in page
    row = {"version": 2, "tier": "challenger", "requests": 412, "matured": 310, "missing": 0, "immature": 102}
    row |= {"early": 0, "unmatched": 0, "brier": 0.18321, "brier_low": 0.17, "brier_high": None, "mean_score": 0.4}
    shown = evidence_page.draw(record | {"online": {"<b>challenger": [row]}})
    for text in ("answers given online", "412", "310", "0.1832", "&lt;b&gt;challenger"):
        assert text in shown
    assert "<b>challenger" not in shown
    assert (
        shown.replace(evidence_page._online({"<b>challenger": [row]}, targets.read(record["drawn"])) + "\n", "") == page
    )
