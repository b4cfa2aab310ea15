"""The page that is approved: the same bytes for the same record, nothing that runs, nothing that is not escaped."""

import hashlib
import json
import re
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any, Literal

import pytest

from tests import chromium
from tests.unit.judge.test_pairs import TONIGHT, drawn, spec_of
from tiltyard.edge import way_back
from tiltyard.judge import evidence_page, gate, pairs
from tiltyard.records import ArmFigures, Criterion, EvidenceRecord, FilledFeature, PromiseRecord, TrainedFrom

GOLDEN = Path(__file__).parents[2] / "golden" / "ledger"


@pytest.fixture(scope="module")
def record() -> EvidenceRecord:
    spec = spec_of()
    rows = drawn()
    known = pairs.ChallengerFacts(
        2,
        gate.Missing("size", 0.1, 0.12),
        3.0,
        1.5,
        gate.Replayed("pass", "on this night"),
        gate.Labelled("sound", "as expected"),
    )
    evidence, gathered = pairs.gather(spec, TONIGHT, rows, 2, 1, known)
    verdict = gate.decide(evidence, spec.gate, 20)
    promise = PromiseRecord(
        owner="desk",
        tier=1,
        approvals=2,
        policy=spec.gate.model_dump(mode="json"),
        trained_on=date(2016, 3, 1),
        trained_by="ada",
        training=TrainedFrom(rows=4000, reasons=("drift",)),
    )
    picture = pairs.picture(spec, evidence, rows, 2, 1)
    return replace(pairs.judged(gathered, verdict), drawn=picture, promise=promise).signed(verdict.verdict)


def shuffled(value: Any) -> Any:
    """As PostgreSQL gives JSON back: its keys in another order."""
    if isinstance(value, dict):
        return {name: shuffled(value[name]) for name in sorted(value, reverse=True)}
    return [shuffled(part) for part in value] if isinstance(value, list) else value


def test_the_same_record_gives_the_same_bytes(record: EvidenceRecord) -> None:
    page = evidence_page.draw(record)
    assert evidence_page.draw(EvidenceRecord.from_json(json.loads(json.dumps(shuffled(record.to_json()))))) == page


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_who_opens_it_in_airflow_can_read_it_on_a_telephone(
    record: EvidenceRecord, tmp_path: Path, scheme: Literal["light", "dark"]
) -> None:
    page = tmp_path / "promotion" / "small" / "2016-04-01-v2.html"
    page.parent.mkdir(parents=True)
    page.write_text(evidence_page.draw(record))
    shown = way_back.added(page, tmp_path, "/tiltyard")
    with chromium.opened() as browser:
        seen = browser.new_context(viewport={"width": 400, "height": 900}, color_scheme=scheme).new_page()
        seen.set_content(shown.decode())
        assert chromium.serious(seen) == []
        assert seen.evaluate("document.documentElement.scrollWidth") <= 400


def test_a_page_that_was_approved_can_be_drawn_again() -> None:
    """Records in ledgers name the SHA-256 of their page: what draws them may change only in what they do not hold."""
    rows = [row for path in GOLDEN.glob("*/decision.json") for row in json.loads(path.read_text(encoding="utf-8"))]
    records = [EvidenceRecord.from_json(row["evidence"]) for row in rows if "page" in row["evidence"]]
    assert records
    for record in records:
        assert record.page
        assert hashlib.sha256(evidence_page.draw(record).encode()).hexdigest() == record.page.sha256


def test_another_record_gives_other_bytes(record: EvidenceRecord) -> None:
    page = evidence_page.draw(record)
    changes: tuple[dict[str, Any], ...] = (
        {"digest": "0" * 64},
        {"mean": 0.5},
        {"night": date(2016, 3, 14)},
        {"immature": 7},
    )
    for change in changes:
        assert evidence_page.draw(replace(record, **change)) != page


def test_it_needs_nothing_and_runs_nothing(record: EvidenceRecord) -> None:
    page = evidence_page.draw(record)
    assert not re.search(r"<script|\bon\w+=|javascript:|<iframe|<link|<object|@import", page, re.IGNORECASE)
    fetched = re.findall(r"(?:\bsrc|\bhref|url\()\s*=?\s*[\"']?([^\"')\s>]+)", page)
    assert all(target.startswith("#") for target in fetched), "links point into the page itself"
    assert page.count("<svg") == 5
    ids = re.findall(r'<clipPath id="([^"]+)"', page)
    assert len(set(ids)) == len(ids), "two pictures do not share an id"


def test_whatever_comes_from_data_or_people_is_escaped(record: EvidenceRecord) -> None:
    bad = "<script>alert(1)</script>$x^{"
    assert record.promise and record.drawn
    first, second, *others = record.drawn.slices
    hostile = replace(
        record,
        against=bad,
        model=bad,
        promise=replace(record.promise, owner=bad, trained_by=bad, training=TrainedFrom(rows=4000, reasons=(bad,))),
        criteria=(Criterion(bad, bad, bad, bad, bad), *record.criteria[1:]),  # type: ignore[arg-type]
        drawn=replace(record.drawn, slices=(first, replace(second, name=bad), *others)),
    )
    page = evidence_page.draw(hostile)
    assert "<script" not in page.lower()
    assert page.count("&lt;script") >= 9


def test_it_says_what_the_gate_asked_and_who_may_not_approve(record: EvidenceRecord) -> None:
    page = evidence_page.draw(record)
    for criterion in record.criteria:
        assert f"<td>{criterion.name}</td>" in page
    for text in ("Two people have to approve", "ada", str(record.digest), "max_slice_loss 0.02", "2016-03-13"):
        assert text in page


def test_a_record_with_little_in_it_is_drawn_too(record: EvidenceRecord) -> None:
    """One night, no slices, nothing known early: whatever the gate's policy allows has a page."""
    spec = spec_of(slices=())
    rows = drawn()
    rows = rows[rows["night"] == rows["night"].min()]
    evidence, gathered = pairs.gather(spec, TONIGHT, rows, 2, None)
    slim = replace(gathered, promise=record.promise, drawn=pairs.picture(spec, evidence, rows, 2, None))
    assert evidence_page.draw(slim).count("<svg") == 5


def test_a_picture_that_cannot_be_drawn_takes_no_page_with_it(record: EvidenceRecord) -> None:
    """Shares of a record that JSON has brought back as something else: no promotion fails over a picture of them."""
    assert record.drawn is not None
    broken = replace(record, drawn=replace(record.drawn, scores={"challenger": ["many"], record.against: [1]}))
    page = evidence_page.draw(broken)
    assert page.count("<svg") == 4 and "This cannot be drawn: " in page


def test_features_that_say_nothing_are_a_note_and_no_part_of_what_decided(record: EvidenceRecord) -> None:
    dead = (FilledFeature("<b>size", 0.0, True, 0.25),)
    noted = replace(record, dead=dead)
    page, shown = evidence_page.draw(record), evidence_page.draw(noted)
    assert "Which features say nothing?" not in page
    for text in ("Which features say nothing?", "&lt;b&gt;size", "0.0%", "25.0%"):
        assert text in shown
    assert shown.replace(evidence_page._dead(dead) + "\n", "") == page
    assert noted.signed("promote").digest == record.digest
    assert EvidenceRecord.from_json(json.loads(json.dumps(noted.to_json()))) == noted
    assert "dead" not in record.to_json(), "a record from before is as it was"


def test_the_outcome_of_each_arm_online_is_shown_where_there_is_one(record: EvidenceRecord) -> None:
    page = evidence_page.draw(record)
    assert "answers given online" not in page
    row = ArmFigures(
        version=2, tier="challenger", requests=412, matured=310, immature=102, brier=0.18321, brier_low=0.17
    )
    arms = {"<b>challenger": (row,)}
    shown = evidence_page.draw(replace(record, online=arms))
    for text in ("answers given online", "412", "310", "0.1832", "&lt;b&gt;challenger"):
        assert text in shown
    assert "<b>challenger" not in shown
    assert shown.replace(evidence_page._online(arms, spec_of().target) + "\n", "") == page
