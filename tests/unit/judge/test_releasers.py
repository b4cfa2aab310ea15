"""Whoever released what a version is made of, and its champion is not, does not approve it."""

import shutil
import uuid
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tests.unit.conftest import FIRST, Arena
from tests.unit.judge.test_promotion import DAY, GOOD, approval
from tiltyard import clock
from tiltyard import rails as rails_module
from tiltyard.clock import night_closing
from tiltyard.edge import proposals
from tiltyard.judge import promotion, releasers
from tiltyard.prepare.publishing import Feeding
from tiltyard.records import AcceptedRelease, FeaturesSummary
from tiltyard.settings import Settings
from tiltyard.words import UNKNOWN

AT = datetime(2016, 3, 1, tzinfo=UTC)
MODEL = "sla_breach"
TABLES = ("spn_incident__opened", "ftr_ticket__intake", "lbl_incident__sla")


def made(by: str | None, *changed: str, digest: str = "d", at: datetime = AT) -> AcceptedRelease:
    kept = changed if by is not None else None
    return AcceptedRelease(digest=digest, checkout="c", accepted_at=at, files=1, released_by=by, changed=kept)


def everything(path: str) -> bool:
    return True


def test_those_are_behind_it_who_released_something_that_counts_since_the_champion() -> None:
    rows = [made("ann", "a"), made("bob", "b"), made("cid, dan", "c", "b"), made("airflow", "b"), made("eve")]
    assert releasers.releasers(rows, 0, everything) == ("airflow", "ann", "bob", "cid", "dan")
    assert releasers.releasers(rows, 2, everything) == ("airflow", "cid", "dan")
    assert releasers.releasers(rows, 0, lambda path: path == "c") == ("cid", "dan")
    assert releasers.releasers(rows, 5, everything) == ()


def test_a_release_of_before_names_were_kept_blocks_nobody_and_one_that_lost_its_name_everybody() -> None:
    old = [made(None), made(None)]
    assert releasers.releasers(old, 0, everything) == ()
    assert releasers.releasers([*old, made("ann", "a")], 0, everything) == ("ann",)
    assert releasers.releasers([*old, made("ann", "a"), made(None)], 0, everything) == ("ann", UNKNOWN)
    assert releasers.releasers([*old, made("", "a")], 0, everything) == (UNKNOWN,)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory, postgres_url: str, manifest: Path) -> Iterator[Arena]:
    """An arena of its own: a release concerns every model of a home."""
    folder = tmp_path_factory.mktemp("releasers") / "home"
    settings = Settings(home=folder, database_url=postgres_url, database_prefix=f"releasers{uuid.uuid4().hex[:8]}_")
    with rails_module.opened(settings) as opened:
        (settings.home / "dbt").mkdir(exist_ok=True)
        shutil.copy(manifest, settings.home / "dbt" / "manifest.json")
        yield Arena(opened)


@pytest.mark.parametrize(
    ("path", "counts"),
    [
        (f"models/{MODEL}", True),
        ("models/churn", False),
        ("models/portfolio.yaml", False),
        ("dbt/macros/point_in_time.sql", True),
        ("dbt/dbt_project.yml", True),
        ("dbt/models/features/ftr_ticket__intake.sql", True),
        ("dbt/models/features/ftr_customer__activity.sql", False),
        ("dbt/models/features/ftr_gone.sql", True),
        ("dbt/models/staging/incident/stg_incident__update.yml", True),
        ("dbt/models/staging/incident/_incident__sources.yml", True),
        ("dbt/models/staging/retail/_retail__sources.yml", False),
        ("dbt/models/staging/_ops__sources.yml", True),
        ("expectations/leakage.yaml", True),
        ("expectations/features/default.yaml", True),
        ("expectations/features/ftr_ticket__intake.yaml", True),
        ("expectations/features/ftr_buyer__basket.yaml", False),
    ],
)
def test_a_text_counts_where_a_version_can_be_another_one_by_it(home: Arena, path: str, counts: bool) -> None:
    feeding = Feeding.of_every_source(home.rails.settings)
    assert set(TABLES[1:2]) <= feeding.graph.parents.keys()
    assert releasers.is_part(path, MODEL, TABLES, feeding) is counts


def test_whoever_released_it_cannot_approve_it_and_the_form_says_who_can(home: Arena) -> None:
    spec, ledger = home.spec("released", tier=1), home.rails.ledger
    ledger.accept(made("ann", "models/released", "dbt/dbt_project.yml", digest="first", at=clock.now()))
    as_of = home.duel(spec, {1: GOOD})
    judged = promotion.judge(home.rails, spec, as_of)
    assert proposals.who_may(home.rails, spec, 1, None, ["airflow"]).endswith(
        "Not drift, who asked for it; nor ann, who released what it is made of."
    )
    refused = promotion.promote(home.rails, spec, as_of, approval(judged, as_of, approved_by=" Ann"))
    assert (refused.promoted, refused.is_refused) == (None, True)
    assert "' Ann' released what it is made of and cannot approve it" in refused.reason
    assert promotion.promote(home.rails, spec, as_of, approval(judged, as_of)).promoted == 1


def test_what_the_champion_is_made_of_already_is_not_asked_about_again(home: Arena) -> None:
    spec, ledger = home.spec("succeeded", tier=1), home.rails.ledger
    ledger.accept(made("ann", "models/succeeded", digest="one", at=clock.now()))
    home.version(spec, 1, FIRST - 3 * DAY, facts={"release": "one"})
    ledger.accept(made("bob", "dbt/macros/written.sql", digest="two", at=clock.now()))
    ledger.accept(made("cid", "models/churn", digest="three", at=clock.now()))
    home.version(spec, 2, FIRST - 2 * DAY, facts={"release": "three"})
    ledger.accept(made("dan", "models/succeeded", digest="four", at=clock.now()))
    home.version(spec, 3, FIRST - DAY, facts={"release": "three"})  # begun before, registered after
    home.version(spec, 4, FIRST, facts={"release": "four"})
    assert "ann" in releasers.behind(home.rails, spec, 1, None)
    assert releasers.behind(home.rails, spec, 2, 1) == ("bob",)
    assert releasers.behind(home.rails, spec, 3, 2) == ()
    assert releasers.behind(home.rails, spec, 4, 3) == ("dan",)
    assert releasers.behind(home.rails, spec, 4, 1) == ("bob", "dan")
    assert releasers.behind(home.rails, spec, 2, 4) == (), "an older one brings nothing new"


def test_a_champion_from_tables_of_before_a_release_is_not_made_of_it(home: Arena) -> None:
    """Texts were released at noon, and a person trained before the night that builds them."""
    spec, ledger = home.spec("at_noon", tier=1, source="incident"), home.rails.ledger
    night = night_closing(FIRST + 39 * DAY)
    ledger.accept(made("ann", "dbt/macros/written.sql", digest="morning", at=clock.now()))
    ledger.record_stage("incident", night, "done", FeaturesSummary(release="morning"))
    ledger.accept(made("bob", "dbt/macros/written.sql", digest="noon", at=clock.now()))
    home.version(spec, 1, FIRST + 39 * DAY, facts={"release": "noon"})
    home.version(spec, 2, FIRST + 41 * DAY, facts={"release": "noon"})
    assert releasers.behind(home.rails, spec, 2, 1) == ("bob",)


def test_where_nobody_knows_who_released_it_no_approval_counts(home: Arena) -> None:
    spec, ledger = home.spec("nameless", tier=1), home.rails.ledger
    ledger.accept(replace(made(UNKNOWN, "models/nameless"), accepted_at=clock.now()))
    as_of = home.duel(spec, {1: GOOD})
    judged = promotion.judge(home.rails, spec, as_of)
    assert proposals.who_may(home.rails, spec, 1, None, ["airflow"]).startswith("**No approval counts**: it is not")
    refused = promotion.promote(home.rails, spec, as_of, approval(judged, as_of))
    assert refused.reason == "The approval does not hold: it is not known who released what it is made of."
    lowered = spec.model_copy(update={"tier": 2})  # the way on that the how-to names
    assert promotion.promote(home.rails, lowered, as_of).promoted is None, "its page has asked for a person"
    assert promotion.judge_night(home.rails, lowered, as_of + DAY).promoted == 1
    assert releasers.behind(home.rails, spec, 1, 1) == ()
