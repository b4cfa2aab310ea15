"""A model under a person's hand over several nights of the simulated business, played by the hindcast.

night       1    2    3    4    5    6    7
by hand          retire         unretire, freeze
played      x    x    –    –    –    x    x
"""

from datetime import date, datetime, timedelta
from pathlib import Path

from tests.conftest import business_home
from tiltyard import clock
from tiltyard import rails as rails_module
from tiltyard.clock import night_closing
from tiltyard.edge import board, describe, status
from tiltyard.judge import operate, shadow
from tiltyard.rails import Rails
from tiltyard.records import FeaturesSummary, OperationAction, ShadowSummary
from tiltyard.rewind import hindcast
from tiltyard.serve.servable import Servables
from tiltyard.spec import Spec, find

FIRST = clock.parse_as_of("2025-02-03")
NIGHT = timedelta(days=1)


def at(number: int) -> datetime:
    return FIRST + (number - 1) * NIGHT


def scored(rails: Rails) -> list[int]:
    """The numbers of the nights that were scored."""
    return [(night - FIRST.date()).days + 1 for night in rails.ledger.stage_runs(ShadowSummary, "churn")]


def by_hand(rails: Rails, spec: Spec, action: OperationAction) -> str:
    done = operate.request(rails, spec, action, reason="an audit", by="ann", source="command line", now=clock.now())
    assert done.operation, done.sentence
    return done.sentence


def test_a_model_is_retired_brought_back_and_frozen(
    tmp_path: Path, postgres_url: str, eager_models: Path, deliveries: Path
) -> None:
    settings = business_home(tmp_path, postgres_url, eager_models, deliveries)
    spec = find(eager_models, "churn")
    with rails_module.opened(settings) as rails:
        hindcast.hindcast(rails, [spec], FIRST, at(2))
        before = {number: rails.ledger.roles("churn", night_closing(at(number))) for number in (1, 2)}
        assert rails.ledger.versions("churn"), "the first night asked for a training"
        answers = rails.lake.query("select count(*) as rows from {ops.prediction} where model = 'churn'", at(2))
        by_hand(rails, spec, "retire")
        [row] = board.read(rails, [spec], clock.now()).models
        assert (row.state, row.champion) == ("retired", None)
        service = Servables(settings)
        service.refresh()
        assert (service.current["churn"].champion, service.current["churn"].challengers) == (None, ())

        result = hindcast.hindcast(rails, [spec], FIRST, at(5))
        assert scored(rails) == [1, 2], "nobody scores it"
        assert result.models["churn"].resumed == 5, "no night waits for it"
        assert rails.lake.query("select count(*) as rows from {ops.prediction} where model = 'churn'", at(5)).equals(
            answers
        )
        assert {number: rails.ledger.roles("churn", night_closing(at(number))) for number in (1, 2)} == before

        summary = FeaturesSummary(snapshot=rails.lake.snapshot())  # other models of its source go on
        rails.ledger.publish([], night_closing(at(5)), "done", summary, spec.source)
        by_hand(rails, spec, "unretire")
        by_hand(rails, spec, "freeze")
        trained = len(rails.ledger.versions("churn"))
        hindcast.hindcast(rails, [spec], FIRST, at(7))
        assert scored(rails) == [1, 2, 6, 7], "it owes none of those on which it was retired"
        assert set(shadow.unanswered(rails, spec, at(7))) <= {night_closing(at(number)) for number in (1, 2, 6, 7)}
        assert len(rails.ledger.versions("churn")) == trained
        assert {entry.night for entry in rails.ledger.retrains("churn")} <= {night_closing(at(n)) for n in (1, 2)}
        told = describe.model(status.status(rails, spec))
        assert "by hand      frozen since the night of" in told
        assert [one.action for one in operate.listing(rails)] == ["retire", "unretire", "freeze"]
        assert isinstance(operate.listing(rails)[0].night, date)
