"""A model and its source are taken away: all of what is theirs goes, nothing of anybody else's, whoever is killed in
the middle goes on, and the nights of the others never notice."""

import json
import shutil
import subprocess
from collections.abc import Iterator
from datetime import date, timedelta
from pathlib import Path

import pytest

from tests.conftest import know_project, make_settings
from tests.homes import copied
from tests.unit.cli.test_cli import tiltyard
from tiltyard import clock, release
from tiltyard import rails as rails_module
from tiltyard.errors import BadInput, CheckFailed
from tiltyard.judge import shadow
from tiltyard.lake import identifier
from tiltyard.online import fill
from tiltyard.prepare import features, ingest, releasing
from tiltyard.prepare.simulator import Simulator
from tiltyard.rails import Rails
from tiltyard.serve.servable import Servables
from tiltyard.settings import ROOT, Settings
from tiltyard.spec import find
from tiltyard.tables import LANDED_FILE, PREDICTION
from tiltyard.upkeep import holds, removing

AS_OF = clock.parse_night("2025-01-11")
DAY = timedelta(days=1)
VIEWS = {"ftr_customer__activity", "ftr_customer__payments", "ftr_customer__profile"}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, postgres_url: str) -> Settings:
    """A checkout in git, and a home with one night of the simulated business: built, scored and online."""
    folder = tmp_path_factory.mktemp("removing")
    parts = {part: folder / "checkout" / part for part in release.PARTS}
    for part, path in parts.items():
        shutil.copytree(ROOT / part, path, ignore=shutil.ignore_patterns("target", "logs"))
    git(folder / "checkout", "init", "-q")
    git(folder / "checkout", "add", "-A")
    git(folder / "checkout", "-c", "user.name=x", "-c", "user.email=x@example.org", "commit", "-qm", "all of it")
    settings = make_settings(folder, postgres_url, sources=("subscription",), **parts)
    know_project(settings, postgres_url)
    Simulator(customers=200, start=date(2025, 1, 1), days=10).land(settings.landing / "subscription")
    with rails_module.opened(settings) as checkout:
        rails, _ = releasing.in_force(checkout, clock.now(), by="tests")
        features.build_night(rails, AS_OF, render=False)
        shadow.shadow_night(rails, find(rails.settings.models, "churn"), AS_OF)
        assert fill.materialise(rails, AS_OF).rows.keys() == VIEWS
    return settings


@pytest.fixture
def checkout(made: Settings, tmp_path: Path) -> Iterator[Rails]:
    with rails_module.opened(copied(made, tmp_path)) as rails:
        yield rails


def git(folder: Path, *words: str) -> str:
    return subprocess.run(["git", "-C", str(folder), *words], check=True, capture_output=True, text=True).stdout


def remove(rails: Rails, name: str) -> removing.Removal:
    return removing.remove(rails, name, by="tests", now=clock.now())


def lake_tables(rails: Rails) -> set[str]:
    return {f"{schema}.{name}" for schema, name in removing._lake_tables(rails)}


def online(rails: Rails) -> set[str]:
    return set(removing._online(rails.settings, VIEWS))


def state(rails: Rails) -> tuple[object, ...]:
    """All that a removal may change."""
    count = f"select count(*) from {identifier(LANDED_FILE)} where source = 'subscription'"
    settings = rails.settings
    return (
        release.working(settings),
        release.stored(release.current(settings)),
        lake_tables(rails),
        rails.lake.connection.execute(count).fetchone(),
        online(rails),
        sorted(path for path in settings.landing.rglob("*") if path.is_file()),
        [entry.table for entry in rails.ledger.table_states()],
    )


def test_a_dry_run_names_every_path_and_how_git_has_it_and_changes_nothing(checkout: Rails) -> None:
    models = checkout.settings.models / "churn"
    (models / "notes.txt").write_text("mine\n")
    (models / "card.md").write_text("changed\n")
    (models.parent / "sla_breach" / "card.md").write_text("changed, too\n")
    before = state(checkout)
    found = removing.plan(checkout, "churn")
    assert state(checkout) == before
    files = {Path(file.path).name: file.git for file in found.files}
    assert (files["notes.txt"], files["card.md"], files["spec.yaml"]) == ("not in git", "changed", "committed")
    assert {file.path for file in found.edited} == {str(checkout.settings.dbt / "models" / "_models__exposures.yml")}
    assert set(found.online) == VIEWS
    assert "What waits in the checkout goes into force with it: sla_breach (changed)." in found.kept
    assert "spines.spn_customer_reviewed" in found.tables
    assert not [table for table in found.tables if table.startswith(("raw.", "staging."))]
    assert not found.is_done


def test_a_model_goes_and_its_source_and_its_history_stay(checkout: Rails) -> None:
    servables = Servables(checkout.settings)
    assert servables.refresh()
    assert "churn" in servables.current
    before = lake_tables(checkout)
    removed = remove(checkout, "churn")
    assert removed.is_done
    assert before - lake_tables(checkout) == set(removed.tables)
    assert not (checkout.settings.models / "churn").exists()
    assert "name: churn\n" not in (checkout.settings.dbt / "models" / "_models__exposures.yml").read_text()
    assert online(checkout) == set()
    assert servables.refresh(), "the next look of a service that runs"
    assert "churn" not in servables.current
    assert not (servables.folder / "churn.json").exists()
    scored = checkout.lake.query(f"select * from {{{PREDICTION}}} where model = 'churn'", AS_OF)
    assert len(scored)
    assert checkout.ledger.finished("shadow", "churn") == {AS_OF.date()}
    [event] = checkout.ledger.events("churn", removing.REMOVED)
    assert event.detail["by"] == "tests"
    assert remove(checkout, "churn").is_empty, "twice is once"
    Simulator(customers=200, start=date(2025, 1, 1), days=11).land(checkout.settings.landing / "subscription")
    rails, _ = releasing.in_force(checkout, clock.now(), by="tests")
    night = features.build_night(rails, AS_OF + DAY, render=False)
    assert "raw.login" in night.sources["subscription"].published.published


def test_a_source_goes_once_no_model_reads_it_and_comes_back_as_a_new_one(checkout: Rails) -> None:
    with pytest.raises(CheckFailed, match="the model churn reads it, through ftr_customer__activity; remove churn"):
        remove(checkout, "subscription")
    remove(checkout, "churn")
    layer = checkout.settings.dbt / "models" / "labels" / "int_login_day.sql"  # of nobody's, made of the source
    layer.write_text("select customer_id from {{ ref('stg_subscription__login') }}\n")
    checkout.lake.connection.execute("create view lake.labels.int_login_day as select 1 as customer_id")
    removed = remove(checkout, "subscription")
    assert removed.rows[LANDED_FILE.name] == 40
    assert "labels.int_login_day" in removed.tables
    assert not layer.exists()
    assert not [table for table in lake_tables(checkout) if "subscription" in table or table.startswith("raw.")]
    assert not (checkout.settings.landing / "subscription").exists()
    assert not checkout.ledger.table_states()
    assert remove(checkout, "subscription").is_empty

    git(checkout.settings.models.parent, "checkout", "-q", ".")
    Simulator(customers=200, start=date(2025, 1, 1), days=10).land(checkout.settings.landing / "subscription")
    rails, _ = releasing.in_force(checkout, clock.now(), by="tests")
    assert not ingest.land_night(rails, "subscription", AS_OF).quarantined
    features.build_night(rails, AS_OF, render=False)
    assert set(fill.materialise(rails, AS_OF).rows.values()) != {0}
    assert online(rails) == VIEWS


@pytest.mark.parametrize("step", ["_remove_texts", "_out_of_force", "_drop", "_empty_store", "rmtree", "unlink"])
def test_who_is_killed_in_the_middle_goes_on(checkout: Rails, monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    """Before a step, or, of the files of the checkout, after some of them."""

    def die(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    deleted: list[Path] = []

    def unlink(self: Path, missing_ok: bool = False) -> None:
        if self.is_relative_to(checkout.settings.dbt):
            deleted.append(self)
            if len(deleted) == 4:
                die()
        keep(self, missing_ok=missing_ok)

    keep = Path.unlink
    (checkout.settings.home / "cache" / "churn").mkdir(parents=True)
    with monkeypatch.context() as patched:
        match step:
            case "unlink":
                patched.setattr(Path, "unlink", unlink)
            case "rmtree":
                patched.setattr(shutil, "rmtree", die)
            case _:
                patched.setattr(removing, step, die)
        with pytest.raises(KeyboardInterrupt):
            remove(checkout, "churn")
    assert remove(checkout, "churn").is_done
    assert removing.plan(checkout, "churn").is_empty
    assert not list((checkout.settings.home / "removals").iterdir())
    assert not [table for table in lake_tables(checkout) if "customer_" in table or "churn" in table]
    assert online(checkout) == set()


def test_nothing_goes_under_a_legal_hold(checkout: Rails) -> None:
    hold = holds.hold(checkout, None, None, by="ann", reason="case 17")
    before = state(checkout)
    with pytest.raises(CheckFailed, match=rf"legal hold {hold.id} of ann stands \(case 17\).*holds release {hold.id}"):
        remove(checkout, "churn")
    assert state(checkout) == before
    holds.release(checkout, hold.id, by="ann", reason="closed")
    assert remove(checkout, "churn").is_done


def test_nothing_goes_of_a_model_that_a_hindcast_plays(checkout: Rails) -> None:
    before = state(checkout)
    with checkout.ledger.playing(["churn"]), pytest.raises(CheckFailed, match="A hindcast plays it at this moment"):
        remove(checkout, "churn")
    assert state(checkout) == before
    assert remove(checkout, "churn").is_done


def test_what_another_model_reads_stays_and_is_named_with_its_reader(checkout: Rails) -> None:
    models = checkout.settings.models
    shutil.copytree(models / "churn", models / "twin")
    before = lake_tables(checkout)
    removed = remove(checkout, "churn")
    assert removed.tables == ()
    assert "ftr_customer__profile stays: the model twin reads it." in removed.kept
    assert (lake_tables(checkout), online(checkout)) == (before, VIEWS)
    assert release.folders(release.in_force(checkout.settings).models) >= {"twin"}


def test_what_would_break_the_rest_of_the_checkout_is_not_removed(checkout: Rails) -> None:
    """Whose name is put together in a table's SQL no text says; dbt does."""
    path = checkout.settings.dbt / "models" / "labels" / "lbl_ticket_late.sql"
    path.write_text("select * from {{ ref('lbl_' ~ 'churn') }}\n")
    releasing.accept(checkout, clock.now(), by="tests")
    before = state(checkout)
    with pytest.raises(CheckFailed, match=r"does not hold together: .*lbl_churn"):
        remove(checkout, "churn")
    assert state(checkout) == before


def test_leftovers_of_a_source_stop_nobody_and_can_be_taken_away(checkout: Rails) -> None:
    """Its texts were deleted by hand, and somebody goes on delivering."""
    gone = checkout.settings.landing / "gone" / "thing" / "2025-01-10.csv"
    gone.parent.mkdir(parents=True)
    gone.write_text("a,b\n1,2\n")
    rails, _ = releasing.in_force(checkout, clock.now(), by="tests")
    both = rails_module.Rails(
        rails.settings.model_copy(update={"sources": ("gone", "subscription")}), rails.lake, rails.ledger
    )
    Simulator(customers=200, start=date(2025, 1, 1), days=11).land(checkout.settings.landing / "subscription")
    night = features.build_night(both, AS_OF + DAY, render=False)
    assert "spn_customer_reviewed" in night.sources["subscription"].published.published
    assert "There is no source 'gone'" in (night.sources["gone"].error or "")
    assert shadow.shadow_night(both, find(both.settings.models, "churn"), AS_OF + DAY).rows
    assert remove(checkout, "gone").folders == {str(checkout.settings.landing / "gone"): 1}
    assert not gone.exists()


def test_texts_that_were_deleted_by_hand_leave_tables_that_are_found(checkout: Rails) -> None:
    settings = checkout.settings
    for path in removing.plan(checkout, "churn").files:
        Path(path.path).unlink()
    (settings.models / "churn").rmdir()
    for name, text in removing._look(checkout, "churn", None)[1].edited.items():
        removing._place(settings, name).write_text(text)
    releasing.accept(checkout, clock.now(), by="tests")
    assert "spines.spn_customer_reviewed" in remove(checkout, "churn").tables
    shutil.rmtree(settings.dbt / "models" / "staging" / "subscription")
    releasing.accept(checkout, clock.now(), by="tests")
    assert {"raw.login", "staging.stg_subscription__login"} <= set(remove(checkout, "subscription").tables)


def test_a_name_that_is_none_is_answered_with_near_ones(checkout: Rails) -> None:
    with pytest.raises(BadInput, match="no model or source 'chrun'; did you mean churn"):
        removing.plan(checkout, "chrun")
    with pytest.raises(BadInput, match="no source 'churn'"):
        removing.plan(checkout, "churn", "source")
    with pytest.raises(BadInput, match=r"There is no"):
        removing.plan(checkout, "../landing")


def test_the_command_asks_for_a_word_and_tells_by_its_exit_code(checkout: Rails) -> None:
    settings = checkout.settings
    ours = {f"TILTYARD_{part.upper()}": str(getattr(settings, part)) for part in release.PARTS}
    unasked = tiltyard("remove", "churn", settings=settings, **ours)
    assert (unasked.returncode, "say --yes to remove churn" in unasked.stderr) == (2, True)
    blocked = tiltyard("remove", "subscription", "--dry-run", "--json", settings=settings, **ours)
    assert blocked.returncode == 1
    assert json.loads(blocked.stdout)["blocked"] == [
        "the model churn reads it, through ftr_customer__activity; remove churn first."
    ]
    done = tiltyard("remove", "churn", "--yes", "--json", settings=settings, **ours)
    assert (done.returncode, json.loads(done.stdout)["is_done"]) == (0, True)
    again = tiltyard("remove", "churn", "--yes", settings=settings, **ours)
    assert (again.returncode, "nothing is left of the model churn" in again.stdout) == (0, True)
