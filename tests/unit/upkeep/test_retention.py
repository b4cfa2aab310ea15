"""How long rows are kept: for ever, or as the setting says, and never shorter than a model looks back."""

from datetime import timedelta

import pandas as pd
import pytest

from tiltyard import clock
from tiltyard.errors import BadInput
from tiltyard.rails import Rails
from tiltyard.records import LakeMaintenanceSummary
from tiltyard.settings import ROOT, Settings
from tiltyard.spec import find
from tiltyard.tables import PROFILE, TIER_SHARE
from tiltyard.upkeep import holds, maintenance, retention
from tiltyard.upkeep.erasing import lake_files

AS_OF = clock.parse_as_of("2025-06-01")
CHURN = find(ROOT / "models", "churn")


def test_without_the_setting_every_row_stays() -> None:
    assert retention.durations((), [CHURN]) == {}


def test_a_default_is_for_all_that_may_have_one_and_a_name_goes_before_it() -> None:
    kept = retention.durations(("default=1000d", "ops.profile = 400d"), [CHURN])
    assert kept["ops.profile"] == timedelta(days=400)
    assert kept["ops.prediction"] == timedelta(days=1000)
    assert not kept.keys() & {*retention.FOR_EVER}


@pytest.mark.parametrize(
    ("written", "sentence"),
    [
        ("raw.login=400d", "rows of 'raw.login' stay for ever; a retention may have ops.column_profile, "),
        ("ops.landed_file=400d", "rows of 'ops.landed_file' stay for ever"),
        ("ops.profile", "'' is not a duration; write a number and a unit"),
        ("ops.profile=long", "'long' is not a duration"),
        ("ops.profile=10d", "keeps ops.profile for 10d, but churn looks back for 1"),
        ("default=1d", "keeps default for 1d, but churn looks back"),
    ],
)
def test_what_cannot_be_is_told(written: str, sentence: str) -> None:
    with pytest.raises(BadInput, match=sentence.replace("(", r"\(")):
        retention.durations((written,), [CHURN])


def test_a_table_is_named_once() -> None:
    with pytest.raises(BadInput, match=r"names ops\.profile twice"):
        retention.durations(("ops.profile=400d", "ops.profile=500d"), [CHURN])


def test_the_setting_is_read_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TILTYARD_LAKE_RETENTION", "default=1000d, ops.profile=400d")
    assert Settings().lake_retention == ("default=1000d", "ops.profile=400d")


def test_old_rows_go_at_their_retention_but_not_while_a_hold_stands(rails: Rails) -> None:
    settings = rails.settings.model_copy(update={"lake_retention": ("ops.profile=400d",), "sources": ("subscription",)})
    rails = Rails(settings, rails.lake, rails.ledger)
    for table in (PROFILE, TIER_SHARE):
        rails.lake.ensure(table)
        nights = [AS_OF - timedelta(days=days) for days in (401, 400, 1)]
        rails.lake.replace(table, {}, pd.DataFrame({"model": "churn", "available_at": nights}), message="test")

    hold = holds.hold(rails, None, None, by="ann", reason="case 17")
    assert maintain(rails).rows_removed == {}
    holds.release(rails, hold.id, by="ann", reason="closed")
    assert maintain(rails, dry_run=True).rows_removed == {"ops.profile": 1}
    assert maintain(rails).rows_removed == {"ops.profile": 1}
    old = "available_at < timestamptz '2024-04-27'"
    sources = [*lake_files.files(rails.lake), *lake_files.inlined(rails.lake)]
    kept = [own.source for own in sources if own.table == PROFILE.name]
    rows = [rails.lake.connection.execute(f"select count(*) from {own} where {old}").fetchone() for own in kept]
    assert kept and rows == [(0,)] * len(kept), "at no snapshot"
    assert maintain(rails).rows_removed == {}
    assert len(rails.lake.query(f"select * from {{{PROFILE}}}", AS_OF)) == 2
    assert len(rails.lake.query(f"select * from {{{TIER_SHARE}}}", AS_OF)) == 3


def test_a_retention_that_cannot_be_removes_nothing_and_is_recorded(rails: Rails) -> None:
    settings = rails.settings.model_copy(update={"lake_retention": ("raw.login=400d",)})
    with pytest.raises(BadInput, match="stay for ever"):
        maintain(Rails(settings, rails.lake, rails.ledger))
    run = rails.ledger.last_stage_run(LakeMaintenanceSummary)
    assert run is not None
    assert run.status == "failed"
    assert "stay for ever" in (run.summary.reason or "")


def test_a_hold_has_a_reason_a_right_range_and_one_end(rails: Rails) -> None:
    day = AS_OF.date()
    with pytest.raises(BadInput, match="needs a reason"):
        holds.hold(rails, None, None, by="ann", reason=" ")
    with pytest.raises(BadInput, match="swap --from and --to"):
        holds.hold(rails, day, day - timedelta(days=1), by="ann", reason="case 17")
    hold = holds.hold(rails, day, day, by="ann", reason="case 17")
    assert (hold.first, hold.last) == (AS_OF, AS_OF + timedelta(days=1))
    assert holds.open_ones(rails) == [hold]
    with pytest.raises(BadInput, match=rf"No legal hold {hold.id + 1} stands \(there are: {hold.id}\)"):
        holds.release(rails, hold.id + 1, by="ann", reason="closed")
    holds.release(rails, hold.id, by="ann", reason="closed")
    with pytest.raises(BadInput, match=r"there are: none"):
        holds.release(rails, hold.id, by="ann", reason="closed")


def maintain(rails: Rails, *, dry_run: bool = False) -> LakeMaintenanceSummary:
    return maintenance.maintain(rails, AS_OF, now=clock.now() + timedelta(days=3), dry_run=dry_run)
