"""A table that dbt could not build is mended, and the nights that it had failed on are played again."""

import logging
from datetime import timedelta
from pathlib import Path

import pytest

from tests import bazaar
from tiltyard import clock
from tiltyard import rails as rails_module
from tiltyard.clock import night_closing
from tiltyard.records import ShadowSummary
from tiltyard.rewind import hindcast
from tiltyard.spec import find

FIRST = clock.parse_as_of("2025-03-04")
NIGHT = timedelta(days=1)
LAST = FIRST + 3 * NIGHT
SPINE = "spines/spn_sale"


@pytest.mark.parametrize("broken", [SPINE, "staging/shop/stg_shop__sale"])
def test_the_nights_on_which_a_table_failed_are_judged_anew_each_in_its_turn(
    tmp_path: Path, postgres_url: str, caplog: pytest.LogCaptureFixture, broken: str
) -> None:
    """Also those of a range that ends before the newest night on which it failed."""
    settings = bazaar.settings_of(tmp_path, postgres_url)
    for number in range(4):
        for source in bazaar.TABLES:
            bazaar.deliver(settings, source, (FIRST + (number - 1) * NIGHT).date())
    bazaar.model(settings, broken, bazaar.MODELS[broken].replace("select ", "select error('no key') as broken, "))
    with rails_module.opened(settings) as rails:
        till = find(settings.models, "till")
        result = hindcast.hindcast(rails, [till], FIRST, LAST, jobs=1)
        assert len(result.models["till"].waiting) == 4
        assert any(table.states.get("failed") == 4 for table in result.tables)

        bazaar.model(settings, broken, bazaar.MODELS[broken])
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            result = hindcast.hindcast(rails, [till], FIRST, FIRST + NIGHT, jobs=1)
        assert (result.models["till"].waiting, result.models["till"].stopped) == ((), ())
        assert "no key" not in caplog.text, "the reason of then is no reason any more"
        own = {*till.tables, "stg_shop__sale"}
        assert not own & {table.table for table in result.tables}
        result = hindcast.hindcast(rails, [till], FIRST, LAST, jobs=1)
        assert (result.models["till"].waiting, result.models["till"].resumed) == ((), 2)
        done = [rails.ledger.stage_run(ShadowSummary, "till", night_closing(FIRST + n * NIGHT)) for n in range(4)]
        assert [run is not None and run.status for run in done] == ["done"] * 4
        moments = [run.recorded_at for run in done if run is not None]
        assert moments == sorted(moments), "night after night"
        states = [rails.ledger.table_states(until=night_closing(FIRST + n * NIGHT)) for n in range(4)]
        assert {state.state for night in states for state in night if state.table in own} == {"published"}
