"""A mended delivery takes the place of the wrong one, under its own name: rows, tables, and what is told of it."""

from collections.abc import Iterator
from contextlib import suppress
from datetime import timedelta
from pathlib import Path

import pytest

from tests import bazaar, homes
from tiltyard import clock
from tiltyard import rails as rails_module
from tiltyard.errors import BadInput, CheckFailed
from tiltyard.prepare import features, ingest, replacing
from tiltyard.rails import Rails
from tiltyard.settings import Settings
from tiltyard.upkeep import deliveries

FIRST = clock.parse_as_of("2025-03-04")
NIGHT = timedelta(days=1)
LAST = FIRST + NIGHT
WHY = "the clock of the till had stopped"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, postgres_url: str) -> Settings:
    """A night as it should be, and one that is held: its last sale has no time."""
    settings = bazaar.settings_of(tmp_path_factory.mktemp("made"), postgres_url)
    with rails_module.opened(settings) as opened:
        bazaar.deliver(settings, "shop", (FIRST - NIGHT).date())
        features.build_night(opened, FIRST, ["shop"])
        bazaar.deliver(settings, "shop", FIRST.date(), sales("2025-03-04T12:00:00+00:00", ""))
        with suppress(CheckFailed):
            features.build_night(opened, LAST, ["shop"])
    return settings


@pytest.fixture
def rails(tmp_path: Path, made: Settings) -> Iterator[Rails]:
    with rails_module.opened(homes.copied(made, tmp_path)) as opened:
        yield opened


def sales(*times: str) -> list[dict[str, object]]:
    return [{"sale_id": f"sale-{number}", "shop_id": "a", "size": 1.5, "at": at} for number, at in enumerate(times)]


def mended(folder: Path, *times: str) -> Path:
    path = folder / "2025-03-04.csv"
    lines = ["sale_id,shop_id,size,at", *(",".join(map(str, row.values())) for row in sales(*times))]
    path.write_text("\n".join(lines) + "\n")
    return path


def rows(rails: Rails, table: str) -> list[str]:
    found = rails.lake.connection.execute(f"select sale_id from lake.{table} order by 1").fetchall()
    return [sale for (sale,) in found if sale.startswith("sale-")]


GOOD = ("2025-03-04T12:00:00+00:00", "2025-03-04T13:00:00+00:00", "2025-03-04T14:00:00+00:00")


def test_what_has_landed_is_exchanged_and_what_is_made_of_it_is_made_anew(rails: Rails, tmp_path: Path) -> None:
    assert {state.state for state in rails.ledger.table_states()} >= {"held", "blocked"}
    assert rows(rails, "staging.stg_shop__sale") == ["sale-0", "sale-1"]

    landing = rails.settings.landing / "shop" / "sale" / "2025-03-04.csv"
    wrong = landing.read_text()
    mended(landing.parent, *GOOD)
    [refused] = ingest.land_night(rails, "shop", LAST).quarantined
    assert "tiltyard replace shop FILE takes it in place of that" in refused.reason
    landing.write_text(wrong)

    lying = rails.settings.quarantine / "shop" / "sale" / "2025-03-04.csv"
    done = replacing.replace(rails, "shop", lying, by="ann", reason=WHY)
    assert (done.rows, done.before, done.night, done.tables) == (3, 2, LAST.date(), ("stg_shop__sale",))
    assert rows(rails, "raw.sale") == ["sale-0", "sale-1", "sale-2"]
    assert ingest.quarantined(rails, "shop", LAST.date()) == (), "nobody has to see to it any more"
    assert done.kept
    assert Path(done.kept).read_text() == wrong
    [event] = rails.ledger.events(kind=replacing.REPLACED)
    assert (event.detail["by"], event.detail["reason"], event.detail["file"]) == ("ann", WHY, "sale/2025-03-04.csv")

    night = features.build_night(rails, LAST, ["shop"])
    assert night.unpublished == ()
    assert night.sources["shop"].ingest
    assert night.sources["shop"].ingest.quarantined == ()
    assert "a delivery that it is made of was replaced" in night.sources["shop"].transform.rebuilt["stg_shop__sale"]  # type: ignore[union-attr]
    for table in ("staging.stg_shop__sale", "spines.spn_sale"):
        assert rows(rails, table) == ["sale-0", "sale-1", "sale-2"], "each once"
    [landed] = rails.lake.connection.execute(
        "select rows, landed_night::varchar from lake.ops.landed_file where file = '2025-03-04.csv'"
    ).fetchall()
    assert landed == (3, "2025-03-05"), "it counts as what that night has brought"

    again = replacing.replace(rails, "shop", landing, by="ann", reason=WHY)
    assert again.is_same
    assert len(rails.ledger.events(kind=replacing.REPLACED)) == 1
    assert features.build_night(rails, LAST, ["shop"]).sources["shop"].transform.rebuilt == {}  # type: ignore[union-attr]


def test_what_never_landed_is_put_back_and_lands(rails: Rails, tmp_path: Path) -> None:
    landing = rails.settings.landing / "shop" / "sale" / "2025-03-05.csv"
    landing.write_text("sale_id,shop,size,at\nx,a,1,2025-03-05T12:00:00+00:00\n")
    as_of = LAST + NIGHT
    assert len(ingest.land_night(rails, "shop", as_of).quarantined) == 1
    path = mended(tmp_path, "2025-03-05T12:00:00+00:00").rename(tmp_path / "2025-03-05.csv")
    done = replacing.replace(rails, "shop", path, by="ann", reason=WHY)
    assert (done.rows, done.night) == (None, as_of.date())
    assert "the next night takes it" in replacing.summary(done)
    assert "cleared from ingest in Airflow, with the models; tiltyard features" in replacing.summary(done)
    assert not [*rails.settings.quarantine.rglob("*.csv*")]
    landed = ingest.land_night(rails, "shop", as_of)
    assert (landed.rows, landed.quarantined) == (1, ())
    assert ingest.quarantined(rails, "shop", as_of.date()) == ()


@pytest.mark.parametrize("place", ["quarantine", "landing"])
def test_whoever_is_killed_before_the_rows_are_in_gives_the_same_file_again(
    rails: Rails, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    """The mended file lies where the wrong one was put, or in the landing zone itself."""
    folder = {"quarantine": rails.settings.quarantine, "landing": rails.settings.landing}[place] / "shop" / "sale"
    folder.mkdir(parents=True, exist_ok=True)
    path = mended(folder, *GOOD)

    class Killed(BaseException):
        pass

    def killed(*_: object, **__: object) -> None:
        raise Killed

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(rails.lake, "commit", killed)
        replacing.replace(rails, "shop", path, by="ann", reason=WHY)
    assert rows(rails, "raw.sale") == ["sale-0", "sale-1"]
    assert replacing.replace(rails, "shop", path, by="ann", reason=WHY).rows == 3
    assert rows(rails, "raw.sale") == ["sale-0", "sale-1", "sale-2"]
    assert not [*rails.settings.quarantine.glob("shop/sale/2025-03-04.csv*")]
    assert [event.detail["by"] for event in rails.ledger.events(kind=replacing.REPLACED)] == ["ann"], "told once"


def test_whoever_is_killed_once_the_rows_are_in_has_been_put_down(
    rails: Rails, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    class Killed(BaseException):
        pass

    def killed(*_: object, **__: object) -> None:
        raise Killed

    path = mended(tmp_path, *GOOD)
    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(replacing, "_is_over", killed)
        replacing.replace(rails, "shop", path, by="ann", reason=WHY)
    assert rows(rails, "raw.sale") == ["sale-0", "sale-1", "sale-2"]
    [event] = rails.ledger.events(kind=replacing.REPLACED)
    assert (event.detail["by"], event.detail["rows"], event.detail["before"]) == ("ann", 3, 2)
    assert replacing.replace(rails, "shop", path, by="ann", reason=WHY).is_same
    assert len(rails.ledger.events(kind=replacing.REPLACED)) == 1


def test_what_cannot_be_taken_changes_nothing(rails: Rails, tmp_path: Path) -> None:
    def refused(path: Path, why: str, **named: object) -> None:
        before = rows(rails, "raw.sale")
        with pytest.raises(BadInput, match=why):
            replacing.replace(rails, "shop", path, by="ann", **{"reason": WHY, **named})  # type: ignore[arg-type]
        assert rows(rails, "raw.sale") == before
        assert rails.ledger.events(kind=replacing.REPLACED) == []

    good = mended(tmp_path, *GOOD)
    refused(good, "for a reason", reason=" ")
    refused(good, "no table 'salt'", table="salt")
    refused(good, "stay while a legal hold stands: the hold 3", holds=["the hold 3."])
    refused(tmp_path / "2025-03-09.csv", "There is no file")
    refused(good.rename(tmp_path / "mended.csv"), "not named like a delivery")
    link = tmp_path / "2025-03-10.csv"
    link.symlink_to(tmp_path / "mended.csv")
    refused(link, "leads to .*; give the path of the file itself")
    bad = tmp_path / "2025-03-04.csv"
    bad.write_text("sale_id,shop_id,at\nx,a,2025-03-04T12:00:00+00:00\n")
    refused(bad, "cannot be taken: column 'size' is missing. Nothing was replaced")
    bad.write_text("sale_id,shop_id,size,at\nx,a,much,2025-03-04T12:00:00+00:00\n")
    refused(bad, "cannot be taken: its rows cannot be read")


def test_what_is_withdrawn_was_never_known_and_its_bytes_do_not_come_again(rails: Rails, tmp_path: Path) -> None:
    place = rails.settings.landing / "shop" / "sale" / "2025-03-04.csv"
    content = place.read_bytes()
    done = deliveries.withdraw(rails, "shop", "2025-03-04.csv", table=None, by="ann", reason=WHY, holds=())
    taken = done.withdrawal
    assert (taken.rows, taken.night, taken.since, taken.tables) == (2, LAST.date(), LAST.date(), ("stg_shop__sale",))
    assert {"stg_shop__sale", "spn_sale"} <= {*taken.below}
    assert "sale/2025-03-04.csv: 2 rows withdrawn" in deliveries.summary(done)
    assert not place.exists() and Path(str(taken.kept)).read_bytes() == content
    [event] = rails.ledger.events(kind=ingest.TAKEN_BACK)
    assert (event.detail["by"], event.detail["reason"], event.detail["rows"]) == ("ann", WHY, 2)
    night = features.build_night(rails, LAST, ["shop"])
    assert night.unpublished == (), "what had held the night is gone"
    for table in ("raw.sale", "staging.stg_shop__sale", "spines.spn_sale"):
        assert rows(rails, table) == [], table

    place.write_bytes(content)
    place.with_name("2025-03-04-b.csv").write_bytes(content)
    landed = ingest.land_night(rails, "shop", LAST)
    assert landed.rows == 0
    [refused] = landed.quarantined
    assert refused.file == "sale/2025-03-04-b.csv"
    assert refused.reason.startswith(f"ann has withdrawn it ({WHY}); where that was wrong, tiltyard replace shop FILE")

    again = deliveries.withdraw(rails, "shop", "2025-03-04.csv", table=None, by="ann", reason=WHY, holds=()).withdrawal
    assert again.rows == 0 and len(rails.ledger.events(kind=ingest.TAKEN_BACK)) == 1

    back = tmp_path / "2025-03-04.csv"
    back.write_bytes(content)
    assert replacing.replace(rails, "shop", back, by="ben", reason="it was ours after all").rows == 2
    assert rows(rails, "raw.sale") == ["sale-0", "sale-1"]


def test_who_is_killed_while_withdrawing_does_it_again(rails: Rails, monkeypatch: pytest.MonkeyPatch) -> None:
    def killed(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    before = rows(rails, "raw.sale")
    with monkeypatch.context() as patched:
        patched.setattr(type(rails.lake), "commit", killed)
        with pytest.raises(KeyboardInterrupt):
            replacing.withdraw(rails, "shop", "2025-03-04.csv", by="ann", reason=WHY)
    assert rows(rails, "raw.sale") == before
    assert replacing.withdraw(rails, "shop", "2025-03-04.csv", by="ann", reason=WHY).rows == 2
    assert rows(rails, "raw.sale") == []


def test_what_cannot_be_withdrawn_changes_nothing(rails: Rails) -> None:
    before = rows(rails, "raw.sale")
    for name, more, why in (
        ("2025-03-04.csv", {"reason": " "}, "for a reason"),
        ("2025-03-09.csv", {"table": "sale"}, r"No delivery sale/2025-03-09\.csv of shop has landed"),
        ("2025-03-04.csv", {"holds": ["the hold 3."]}, "stay while a legal hold stands: the hold 3"),
        ("2025-03-04.csv", {"table": "salt"}, "no table 'salt'"),
    ):
        with pytest.raises(BadInput, match=why):
            replacing.withdraw(rails, "shop", name, by="ann", **{"reason": WHY, **more})  # type: ignore[arg-type]
    assert rows(rails, "raw.sale") == before
    assert rails.ledger.events(kind=ingest.TAKEN_BACK) == []
