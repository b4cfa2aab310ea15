"""Whose rows are whose, what was counted with them, and what keeps the ledger from telling."""

import json
import shutil
from pathlib import Path

import pandas as pd
import pytest

from tests.conftest import make_settings
from tiltyard import chain, ledger, tombstones
from tiltyard import rails as rails_module
from tiltyard.errors import BadInput
from tiltyard.lake import identifier, put
from tiltyard.prepare import contracts, whose
from tiltyard.prepare.rebuilding import REPLACED
from tiltyard.rails import Rails
from tiltyard.settings import ROOT, Settings
from tiltyard.tables import BUILT, Table
from tiltyard.upkeep import holds
from tiltyard.upkeep.erasing.erase import erase

WHO = "INC0000045"


@pytest.fixture
def desk(rails: Rails) -> Rails:
    """A service desk with the updates of three tickets."""
    desk = Rails(rails.settings.model_copy(update={"sources": ("incident",)}), rails.lake, rails.ledger)
    [contract] = contracts.read(desk.settings, "incident").tables
    desk.lake.ensure(Table(contract.raw, contract.raw_columns))
    rows = [
        {"number": number, "caller_id": caller, "assignment_group": group, "sys_mod_count": "0"}
        for number, caller, group in (
            (WHO, "Caller 7", "Group 70"), (f" {WHO}", "Caller 8", None), ("INC0000046", "Caller 9", "Group 24"),
            ("45", "Caller 9", "Group 24"),
        )
    ]  # fmt: skip
    desk.lake.commit(lambda connection: put(connection, contract.raw, {}, pd.DataFrame(rows)), message="ingest")
    return desk


def test_what_was_counted_with_them_is_put_down_and_made_anew(desk: Rails) -> None:
    staged = Table("staging.stg_incident__update", dict.fromkeys(("ticket_id", "caller_id", "group_id"), "varchar"))
    desk.lake.ensure(staged)
    rows = [{"ticket_id": WHO, "caller_id": "Caller 7", "group_id": "Group 70"},
            {"ticket_id": "INC0000046", "caller_id": "Caller 9", "group_id": "Group 24"}]  # fmt: skip
    desk.lake.commit(lambda connection: put(connection, staged, {}, pd.DataFrame(rows)), message="build")
    before = desk.lake.snapshot()
    receipt = erase(desk, [WHO], entity="ticket", by="tests", reason="request 17").receipt
    assert receipt.left == () and receipt.counts["lake"] == {"raw.incident_update": 2, staged.name: 1}
    touched = desk.ledger.erasures.touched(["ftr_caller__history", "ftr_group__history", "ftr_ticket__intake"])
    assert touched == {
        "ftr_caller__history": {"Caller 7": before, "Caller 8": before},
        "ftr_group__history": {"Group 70": before},
    }
    anew = desk.lake.connection.execute(
        f"select table_name from {identifier(BUILT)} where digest = '{REPLACED}' order by 1"
    ).fetchall()
    assert ("ftr_caller__history",) in anew and ("ftr_ticket__intake",) not in anew
    left = desk.lake.connection.execute(f"select number from {identifier('raw.incident_update')} order by 1")
    assert left.fetchall() == [("45",), ("INC0000046",)]


def test_a_short_name_goes_from_columns_and_the_receipt_says_that_it_is_looked_for_nowhere_else(desk: Rails) -> None:
    (desk.settings.home / "logs").mkdir()
    (desk.settings.home / "logs" / "x.log").write_text("45 rows\n")
    receipt = erase(desk, ["45"], entity="ticket", by="tests", reason="request 17").receipt
    assert receipt.left == () and receipt.counts["lake"] == {"raw.incident_update": 1}
    assert any("too short" in note for note in receipt.notes)
    assert (desk.settings.home / "logs" / "x.log").read_text() == "45 rows\n"


def test_what_nobody_says_is_a_doubt_and_a_person_says_it_in_the_contract(desk: Rails, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"which rows of raw\.flight, raw\.weather are about a flight"):
        erase(desk, ["2014-01-01-AS-1"], entity="flight", by="tests", reason="request 17")
    raw = identifier("raw.incident_update")
    desk.lake.connection.execute(f"update {raw} set caused_by = 'see {WHO}' where number = '45'")
    with pytest.raises(BadInput, match=r"raw\.incident_update\.caused_by names them .* identifies: ticket"):
        erase(desk, [WHO], entity="ticket", by="tests", reason="request 17")
    assert desk.ledger.erasures.hashes() == ({}, set()), "nothing was done"
    shutil.copytree(ROOT / "dbt", tmp_path / "dbt", ignore=shutil.ignore_patterns("target", "logs"))
    path = tmp_path / "dbt" / "models" / "staging" / "incident" / "_incident__sources.yml"
    plain = "{name: caused_by, data_type: varchar,"
    said = f"{plain} config: {{meta: {{tiltyard: {{identifies: ticket}}}}}},"
    assert plain in path.read_text()
    path.write_text(path.read_text().replace(plain, said))
    held = whose.of(desk.settings.model_copy(update={"dbt": tmp_path / "dbt"}), "ticket")
    assert held.columns["raw.incident_update"] == ("caused_by", "number")


def test_nothing_goes_while_a_legal_hold_stands(desk: Rails) -> None:
    holds.hold(desk, None, None, by="ann", reason="case 17")
    with pytest.raises(BadInput, match="legal hold"):
        erase(desk, [WHO], entity="ticket", by="tests", reason="request 17")


def test_the_ledger_tells_nobody_and_without_the_key_nothing_is_taken_in(desk: Rails) -> None:
    erase(desk, [WHO], entity="ticket", by="tests", reason="request 17")
    assert desk.tombstones().among("ticket", [WHO, "INC0000046", f" {WHO} "]) == {WHO}
    assert desk.tombstones().among("customer", [WHO]) == set()
    key = tombstones.folder(desk.settings) / "key"
    assert key.stat().st_mode & 0o077 == 0
    kept = key.read_bytes()
    key.write_bytes(b"another one")
    with pytest.raises(BadInput, match="is not the one that they were made with"):
        desk.tombstones()
    key.unlink()
    with pytest.raises(BadInput, match="the key of the tombstones is gone"):
        desk.tombstones()
    given = desk.settings.model_copy(update={"erasure_key": tombstones_secret(kept)})
    assert Rails(given, desk.lake, desk.ledger).tombstones().among("ticket", [WHO]) == {WHO}


def tombstones_secret(kept: bytes) -> object:
    return Settings(erasure_key=kept.decode()).erasure_key


def test_a_ledger_from_before_takes_the_new_tables_without_a_word(tmp_path: Path, postgres_url: str) -> None:
    settings = make_settings(tmp_path, postgres_url)
    with rails_module.opened(settings) as rails:
        rails.ledger.add_event("something", "", None, {})
        with rails.ledger.engine.begin() as connection:
            for table in ("tombstone", "erasure", "erasure_end", "erasure_found", "erasure_touched"):
                connection.exec_driver_sql(f"drop table {table}")
    ledger._made.clear()
    with rails_module.opened(settings) as rails:
        assert rails.ledger.events(kind=chain.UNWATCHED) == []
        assert rails.ledger.verify().faults == ()
        assert json.dumps([receipt.to_json() for receipt in rails.ledger.erasures.receipts()]) == "[]"
