"""A file of the lake is damaged: what reads it stops and says which, everything else goes on, and there is a way out
for a table that dbt makes, and for a raw one."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import pytest

from tests import bazaar, homes
from tiltyard import clock, damage
from tiltyard import rails as rails_module
from tiltyard.edge import board
from tiltyard.errors import BadInput
from tiltyard.prepare import features, frame, replacing
from tiltyard.rails import Rails, recording_its_end
from tiltyard.records import TrainingSummary
from tiltyard.settings import Settings
from tiltyard.spec import load_all
from tiltyard.upkeep import letting_go, scrub

FIRST = clock.parse_as_of("2025-03-04")
NIGHT = timedelta(days=1)
LATER = FIRST + 10 * NIGHT
"""When the labels have matured."""
MANY = 400
"""Rows of a delivery: few are kept in the catalogue, and in no file."""


def rows(key: str, day: str) -> list[dict[str, object]]:
    return [
        {key: f"{day}-{n}", "shop_id": "ab"[n % 2], "size": n / 7, "at": f"{day}T12:00:00+00:00"} for n in range(MANY)
    ]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, postgres_url: str) -> Settings:
    """Two sources, of which a night is in service."""
    settings = bazaar.settings_of(tmp_path_factory.mktemp("made"), postgres_url)
    with rails_module.opened(settings) as opened:
        deliver(settings, 0)
        features.build_night(opened, FIRST)
    return settings


def deliver(settings: Settings, number: int) -> None:
    day = (FIRST + (number - 1) * NIGHT).date()
    for source, (_, key) in bazaar.TABLES.items():
        bazaar.deliver(settings, source, day, rows(key, str(day)))


@pytest.fixture
def rails(tmp_path: Path, made: Settings) -> Iterator[Rails]:
    with rails_module.opened(homes.copied(made, tmp_path)) as opened:
        yield opened


@contextmanager
def damaged(rails: Rails, table: str) -> Iterator[damage.LakeFile]:
    """The largest file of a table with one bit turned in its middle, as long as it lasts."""
    own = [file for file in damage.files(rails.lake) if file.table == table and file.last is None]
    file = max(own, key=lambda one: one.bytes)
    path, whole = Path(file.path), Path(file.path).read_bytes()
    other = bytearray(whole)
    other[len(other) // 2] ^= 1
    path.write_bytes(bytes(other))
    yield file
    if path.exists():
        path.write_bytes(whole)


def test_only_what_reads_a_damaged_raw_file_stops_and_it_comes_back_from_its_delivery(rails: Rails) -> None:
    deliver(rails.settings, 1)
    specs = load_all(rails.settings.models)
    with damaged(rails, "raw.click") as file:
        night = features.build_night(rails, FIRST + NIGHT, render=False)
        held = {state.table: str(state.reason) for state in night.unpublished}
        said = f"A file of raw.click is damaged, {file.name} with {MANY} rows"
        assert any(said in reason for reason in held.values()), held
        assert {"stg_shop__sale", "ftr_shop__sales", "spn_sale", "lbl_sale"}.isdisjoint(held), "the shop goes on"

        [asked] = [item for item in board.read(rails, specs, clock.now()).inbox if item.kind == "damaged"]
        assert (asked.subject, set(asked.models)) == ("raw.click", {"flow", "blend"})
        assert f"{file.name} with {MANY} rows" in asked.reason

        with pytest.raises(BadInput, match="for a reason"):
            letting_go.let_go(rails, file.name, by="ann", reason=" ")
        done = letting_go.let_go(rails, file.name, by="ann", reason="no backup")
    assert (done.source, done.rows, done.deliveries) == ("web", MANY, ("2025-03-03.csv",))
    assert "tiltyard replace web landing/web/click/2025-03-03.csv" in letting_go.summary(done)
    delivery = rails.settings.landing / "web" / "click" / "2025-03-03.csv"
    back = replacing.replace(rails, "web", delivery, by="ann", reason="its rows were damaged")
    assert back.rows == MANY
    again = features.build_night(rails, FIRST + 2 * NIGHT, render=False)
    assert again.unpublished == ()
    assert count(rails, "raw.click") == count(rails, "staging.stg_web__click") == 2 * MANY
    assert [one for one in scrub.damages(rails) if one.is_current] == []


def test_no_frame_is_made_of_a_damaged_file(rails: Rails) -> None:
    [flow] = [spec for spec in load_all(rails.settings.models) if spec.name == "flow"]

    def training() -> str:
        with recording_its_end(rails, "training", LATER, "flow"):
            return frame.training(rails, flow, LATER, rails.publication()).digest

    with damaged(rails, "spines.spn_sale") as file:
        with pytest.raises(damage.Damaged, match=f"A file of spines.spn_sale is damaged, {file.name}"):
            training()
        [found] = scrub.damages(rails)
        assert (found.table, set(found.models)) == ("spines.spn_sale", {"till", "flow", "blend"})
    run = rails.ledger.stage_run(TrainingSummary, "flow", LATER.date())
    assert run is not None
    assert (run.status, file.name in str(run.summary.reason)) == ("stopped", True)
    assert training()


def test_a_damaged_table_of_dbt_is_made_anew(rails: Rails) -> None:
    deliver(rails.settings, 1)
    with damaged(rails, "features.ftr_shop__traffic") as file:
        found = scrub.scrub_all(rails, lambda label, share: None).damaged
        assert [(one.table, one.file, one.models) for one in found] == [(file.table, file.name, ("flow",))]
        with pytest.raises(BadInput, match="--rebuild ftr_shop__traffic makes it anew"):
            letting_go.let_go(rails, file.name, by="ann", reason="no backup")
        night = features.build_night(rails, FIRST + NIGHT, render=False, rebuild=["ftr_shop__traffic"])
        assert night.unpublished == ()
        assert count(rails, "features.ftr_shop__traffic") == 2 * MANY
        [past] = scrub.damages(rails)
        assert not past.is_current
        assert not [item for item in board.read(rails, load_all(rails.settings.models), clock.now()).inbox
                    if item.kind == "damaged"]  # fmt: skip


def count(rails: Rails, table: str) -> int:
    [number] = rails.lake.connection.execute(f"select count(*) from lake.{table}").fetchone() or (0,)
    return int(number)
