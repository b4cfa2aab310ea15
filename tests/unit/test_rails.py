"""How a stage ends that does not end well is in the ledger, where the governor, a hindcast and status look for it."""

from datetime import datetime
from pathlib import Path

import pytest

from tests.lakes import instant, small_spec
from tiltyard.clock import night_closing
from tiltyard.errors import BadInput, CheckFailed, Fenced, Stopped, TiltyardError, Unavailable
from tiltyard.govern import grants
from tiltyard.rails import Rails, records_its_end
from tiltyard.records import ShadowSummary
from tiltyard.spec import Spec

AS_OF = instant("2024-03-05")
NIGHT = night_closing(AS_OF)


def end_with(rails: Rails, spec: Spec, error: Exception) -> None:
    @records_its_end("shadow")
    def work(rails: Rails, spec: Spec, as_of: datetime) -> None:
        raise error

    with pytest.raises(type(error)):
        work(rails, spec, AS_OF)


@pytest.mark.parametrize(
    ("error", "status"),
    [(CheckFailed("a check failed"), "stopped"), (BadInput("the spine is missing"), "failed")],
)
def test_an_end_that_is_no_good_one_is_recorded_with_its_reason(
    rails: Rails, tmp_path: Path, error: TiltyardError, status: str
) -> None:
    spec = small_spec(tmp_path)
    end_with(rails, spec, error)
    record = rails.ledger.stage_run(ShadowSummary, spec.name, NIGHT)
    assert record is not None
    assert (record.status, record.summary.reason) == (status, str(error))
    assert grants.waiting(rails, [spec], NIGHT, AS_OF) == [], "nobody waits for a model whose night is over"


@pytest.mark.parametrize("error", [Unavailable("the store is away"), Fenced("a newer one")])
def test_what_is_tried_again_leaves_no_record(rails: Rails, tmp_path: Path, error: Exception) -> None:
    spec = small_spec(tmp_path)
    end_with(rails, spec, error)
    assert rails.ledger.stage_run(ShadowSummary, spec.name, NIGHT) is None
    assert grants.waiting(rails, [spec], NIGHT, AS_OF) == [spec.name]


def test_what_nobody_foresaw_is_recorded_by_its_kind_and_not_by_its_text(rails: Rails, tmp_path: Path) -> None:
    spec = small_spec(tmp_path)
    end_with(rails, spec, ZeroDivisionError("postgresql://me:secret@host/"))
    record = rails.ledger.stage_run(ShadowSummary, spec.name, NIGHT)
    assert record is not None and record.status == "failed"
    assert "ZeroDivisionError" in str(record.summary.reason) and "secret" not in str(record.summary.reason)
    assert grants.waiting(rails, [spec], NIGHT, AS_OF) == []


def test_what_a_check_says_is_in_the_record(rails: Rails, tmp_path: Path) -> None:
    spec = small_spec(tmp_path)
    end_with(rails, spec, Stopped("it leaks", rows=7))
    record = rails.ledger.stage_run(ShadowSummary, spec.name, NIGHT)
    assert record is not None
    assert (record.status, record.summary.reason, record.summary.rows) == ("stopped", "it leaks", 7)


def test_a_night_that_was_done_stays_done(rails: Rails, tmp_path: Path) -> None:
    spec = small_spec(tmp_path)
    rails.ledger.record_stage(spec.name, NIGHT, "done", ShadowSummary(night=NIGHT))
    end_with(rails, spec, CheckFailed("a later attempt"))
    record = rails.ledger.stage_run(ShadowSummary, spec.name, NIGHT)
    assert record is not None and record.status == "done"


def test_a_later_attempt_that_ends_well_is_what_counts(rails: Rails, tmp_path: Path) -> None:
    spec = small_spec(tmp_path)
    end_with(rails, spec, BadInput("the spine is missing"))
    rails.ledger.record_stage(spec.name, NIGHT, "done", ShadowSummary(night=NIGHT))
    record = rails.ledger.stage_run(ShadowSummary, spec.name, NIGHT)
    assert record is not None and record.status == "done"
