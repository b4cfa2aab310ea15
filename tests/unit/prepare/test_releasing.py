"""What takes effect of the checkout's specs, suites and dbt files, and what a refused text changes: nothing."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import date
from pathlib import Path

import pytest
import sqlalchemy as sa

from tests.conftest import make_settings
from tests.lakes import instant
from tiltyard import rails as rails_module
from tiltyard import release
from tiltyard.edge import airflow_settings
from tiltyard.errors import BadInput, Unavailable
from tiltyard.prepare import releasing
from tiltyard.rails import Rails
from tiltyard.records import AcceptedRelease, FeaturesSummary, ShadowSummary, TableState
from tiltyard.settings import ROOT, Settings
from tiltyard.spec import find, portfolio

NOW = instant("2025-02-03")
SPEC = "models/churn/spec.yaml"
VIEW = "dbt/models/features/ftr_customer__activity"
EXPOSURES = "dbt/models/_models__exposures.yml"


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    for part in release.PARTS:
        shutil.copytree(ROOT / part, tmp_path / "checkout" / part)
    return tmp_path / "checkout"


@pytest.fixture
def settings(tmp_path: Path, checkout: Path, postgres_url: str) -> Settings:
    parts = {part: checkout / part for part in release.PARTS}
    return make_settings(tmp_path, postgres_url, sources=("subscription", "incident"), **parts)


@pytest.fixture(scope="module")
def accepted(tmp_path_factory: pytest.TempPathFactory, postgres_url: str) -> tuple[Path, AcceptedRelease]:
    """A home in which the checkout as it is was accepted, and the release: dbt's first look takes seconds."""
    settings = make_settings(tmp_path_factory.mktemp("accepted"), postgres_url, sources=("subscription", "incident"))
    with rails_module.opened(settings) as opened:
        return settings.home, releasing.accept(opened, NOW, by="tests")


@pytest.fixture
def rails(settings: Settings, accepted: tuple[Path, AcceptedRelease]) -> Iterator[Rails]:
    home, made = accepted
    for folder in ("releases", "dbt"):
        shutil.copytree(home / folder, settings.home / folder)
    with rails_module.opened(settings) as opened:
        opened.ledger.accept(made)
        yield opened


def change(path: Path, old: str, new: str) -> None:
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new), encoding="utf-8")


def append(path: Path, text: str) -> None:
    path.write_text(path.read_text(encoding="utf-8") + text, encoding="utf-8")


@pytest.mark.parametrize("text", ["../../etc", "", "0123456789abcdef", None])
def test_the_ledger_names_the_release_where_the_file_in_the_home_does_not(
    rails: Rails, checkout: Path, text: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    before, pointer = release.current(rails.settings), release.pointer(rails.settings)
    assert before is not None
    if text is None:
        pointer.unlink()
    else:
        pointer.write_text(text)
    append(checkout / SPEC, "tier: [\n")
    accepted = releasing.accept(rails, NOW, by="tests")
    assert [(refused.path, refused.stands) for refused in accepted.refused] == [("models/churn", True)]
    folder = release.current(rails.settings)
    assert folder is not None and (folder / SPEC).read_bytes() == (before / SPEC).read_bytes()
    assert f"it is {before.name}, by the ledger" in caplog.text


def folder_for(path: Path) -> None:
    path.unlink()
    path.mkdir()


def test_before_the_first_release_the_checkout_counts(settings: Settings) -> None:
    assert release.in_force(settings) == settings


def test_a_release_is_the_checkout_to_the_byte_and_twice_is_once(rails: Rails) -> None:
    accepted = releasing.accept(rails, instant("2025-02-04"), by="tests")
    assert accepted.refused == ()
    assert accepted.digest == accepted.checkout == release.digest(release.working(rails.settings))
    assert [made.accepted_at for made in rails.ledger.releases()] == [NOW]
    folder = release.current(rails.settings)
    assert release.stored(folder) == release.working(rails.settings)
    assert portfolio(release.in_force(rails.settings)) == portfolio(rails.settings)


BREAKS: dict[str, tuple[Callable[[Path], None], str, str]] = {
    "a typo in a spec": (
        lambda folder: change(folder / SPEC, "tier: 3", "tier: 7"),
        "models/churn",
        r"checkout/models/churn/spec.yaml:4: tier: ",
    ),
    "a day that there is not, in a spec": (
        lambda folder: change(folder / SPEC, "owner: subscriptions", "owner: 2024-02-30"),
        "models/churn",
        r"checkout/models/churn/spec.yaml:\d+: .*day is out of range for month",
    ),
    "a key that stands twice": (
        lambda folder: append(folder / SPEC, "\ntier: 1\n"),
        "models/churn",
        r"spec.yaml:\d+: .*'tier' stands there twice",
    ),
    "a spec that is nested too deep": (
        lambda folder: append(folder / SPEC, "\nnotes: " + 25_000 * "[" + 25_000 * "]"),
        "models/churn",
        "levels deep",
    ),
    "a duration longer than time": (
        lambda folder: change(folder / SPEC, "horizon: 14d", "horizon: 99999999999999d"),
        "models/churn",
        r"spec.yaml:\d+: .*longer than a hundred years",
    ),
    "a spec that is a folder": (
        lambda folder: folder_for(folder / SPEC),
        "models/churn",
        "is no file that can be read",
    ),
    "a .yml whose parts are no parts": (
        lambda folder: (folder / f"{VIEW}.yml").write_text("models:\n  - zz\n", encoding="utf-8"),
        f"{VIEW}.yml",
        "",
    ),
    "a spec that names a view that is not there": (
        lambda folder: change(folder / SPEC, "ftr_customer__activity", "ftr_customer__activities"),
        "models/churn",
        "did you mean ftr_customer__activity",
    ),
    "a card that is gone": (
        lambda folder: (folder / "models/churn/card.md").unlink(),
        "models/churn",
        "card.md is miss",
    ),
    "YAML that is none, in the rules for all": (
        lambda folder: append(folder / "models/portfolio.yaml", "\nbudget: [\n"),
        "models/portfolio.yaml",
        "portfolio.yaml:",
    ),
    "YAML that is none, in dbt": (
        lambda folder: append(folder / f"{VIEW}.yml", "\n  bad: [\n"),
        f"{VIEW}.yml",
        r"ftr_customer__activity.yml:\d+: not readable as YAML",
    ),
    "a description that is a template of nothing": (
        lambda folder: change(folder / f"{VIEW}.yml", "description: One", 'description: "{{ user }}, " # One'),
        f"{VIEW}.yml",
        r"ftr_customer__activity.yml:\d+: dbt takes '\{\{ user \}\}, .*nothing is called user",
    ),
    "SQL that refers to nobody": (
        lambda folder: append(folder / f"{VIEW}.sql", "\n{{ ref('nobody') }}"),
        f"{VIEW}.sql",
        "depends on a node named 'nobody'",
    ),
    "a template that is none": (
        lambda folder: append(folder / f"{VIEW}.sql", "\n{% if %}"),
        f"{VIEW}.sql",
        "Compilation Error in model ftr_customer__activity",
    ),
    "tables that read each other in a circle": (
        lambda folder: append(folder / f"{VIEW}.sql", "\n-- {{ ref('ftr_customer__activity') }}"),
        f"{VIEW}.sql",
        "ftr_customer__activity reads ftr_customer__activity. Take a ref out",
    ),
    "a contract that does not hold together": (
        lambda folder: change(
            folder / "dbt/models/staging/incident/_incident__sources.yml", "event_time:", "event_tim:"
        ),
        "dbt/models/staging/incident/_incident__sources.yml",
        "_incident__sources.yml",
    ),
    "a view that a model needs and that is gone": (
        lambda folder: [(folder / f"{VIEW}.{kind}").unlink() for kind in ("sql", "yml")] and None,
        f"{VIEW}.sql",
        "ftr_customer__activity",
    ),
    "a suite that is none": (
        lambda folder: change(folder / "expectations/features/default.yaml", "expectations:", "expectation:"),
        "expectations/features/default.yaml",
        "default.yaml:",
    ),
    "a suite that is gone": (
        lambda folder: (folder / "expectations/freshness.yaml").unlink(),
        "expectations/freshness.yaml",
        "put it back",
    ),
}


@pytest.mark.parametrize("case", BREAKS)
def test_what_is_refused_changes_nothing_and_everything_else_takes_effect(
    rails: Rails, checkout: Path, case: str
) -> None:
    break_it, path, reason = BREAKS[case]
    before = release.stored(release.current(rails.settings))
    break_it(checkout)
    append(checkout / "models/sla_breach/card.md", "\nA line more.\n")  # somebody else's change of the same day
    accepted = releasing.accept(rails, NOW, by="tests")
    (refused,) = accepted.refused
    assert (refused.path, refused.stands) == (path, True)
    assert re.search(reason, refused.reason), refused.reason
    assert ".trial" not in refused.reason.replace("dbt/trial/logs", "")
    stored = release.stored(release.current(rails.settings))
    changed = {name for name in before | stored if before.get(name) != stored.get(name)}
    assert changed == {"models/sla_breach/card.md"}
    assert rails.ledger.release() == accepted


def test_a_row_of_the_release_that_cannot_be_read_stops_nobody(rails: Rails) -> None:
    before = rails.ledger.release()
    with rails.ledger.engine.begin() as connection:
        connection.execute(sa.text("update release set refused = '7'::jsonb"))
    assert rails.ledger.release() is None
    accepted = releasing.accept(rails, instant("2025-02-04"), by="tests")
    assert before is not None
    assert (accepted.digest, accepted.refused) == (before.digest, ())
    assert rails.ledger.release() == accepted


def test_a_release_says_who_made_it_and_what_it_changed(rails: Rails, checkout: Path) -> None:
    first = rails.ledger.release()
    assert first is not None and first.released_by == "tests"
    assert {SPEC.removesuffix("/spec.yaml"), f"{VIEW}.sql", "expectations/leakage.yaml"} <= {*(first.changed or ())}
    append(checkout / SPEC, "# of ours\n")
    append(checkout / f"{VIEW}.sql", "-- of ours\n")
    assert releasing.accept(rails, NOW, by="ann, bob") == releasing.accept(rails, NOW, by="cid")
    newest = rails.ledger.release()
    assert newest is not None
    assert (newest.released_by, newest.changed) == ("ann, bob", (f"{VIEW}.sql", "models/churn"))
    assert releasing.preview(rails, NOW).released_by is None


def test_nobody_hides_what_he_changes_by_writing_it_into_the_release_before(rails: Rails, checkout: Path) -> None:
    folder = release.current(rails.settings)
    assert folder is not None
    for path in (folder / SPEC, checkout / SPEC):
        append(path, "# a line more\n")
    made = releasing.accept(rails, NOW, by="mallory")
    assert made.released_by == "mallory"
    assert {"models/churn", f"{VIEW}.sql"} <= {*(made.changed or ())}
    folder = release.current(rails.settings)
    assert folder is not None
    shutil.rmtree(folder)
    mended = releasing.accept(rails, NOW, by="ann")
    assert (mended.digest, mended.released_by, mended.changed) == (made.digest, "ann", ())


def test_what_is_mended_takes_effect(rails: Rails, checkout: Path) -> None:
    change(checkout / SPEC, "tier: 3", "tier: 7")
    assert releasing.accept(rails, NOW, by="tests").refusals("churn")
    assert find(release.in_force(rails.settings).models, "churn").tier == 3
    change(checkout / SPEC, "tier: 7", "tier: 2")
    assert releasing.accept(rails, NOW, by="tests").refused == ()
    assert find(release.in_force(rails.settings).models, "churn").tier == 2


def test_a_new_model_that_is_refused_is_not_there_yet_and_a_deleted_one_is_gone(rails: Rails, checkout: Path) -> None:
    shutil.copytree(checkout / "models/churn", checkout / "models/young")
    change(checkout / "models/young/spec.yaml", "tier: 3", "tier: 7")
    (refused,) = releasing.accept(rails, NOW, by="tests").refused
    assert (refused.path, refused.stands) == ("models/young", False)
    assert "young" not in {spec.name for spec in portfolio(release.in_force(rails.settings))}
    change(checkout / "models/young/spec.yaml", "tier: 7", "tier: 3")
    releasing.accept(rails, NOW, by="tests")
    assert "young" in {spec.name for spec in portfolio(release.in_force(rails.settings))}
    shutil.rmtree(checkout / "models/young")
    assert releasing.accept(rails, NOW, by="tests").refused == ()
    assert "young" not in {spec.name for spec in portfolio(release.in_force(rails.settings))}


def test_a_new_model_begins_with_the_next_night_of_its_source(rails: Rails, checkout: Path) -> None:
    """Also where it comes back; and one of a home's first release with its data."""
    assert rails.ledger.first_nights(["churn", "twin"]) == {}
    for day in (3, 4):
        rails.ledger.record_stage("subscription", date(2025, 2, day), "done", FeaturesSummary())
    rails.ledger.record_stage("incident", date(2016, 4, 1), "done", FeaturesSummary())
    shutil.copytree(checkout / "models" / "churn", checkout / "models" / "twin")
    change(checkout / SPEC, "tier: 3", "tier: 2")
    releasing.preview(rails, NOW)
    assert rails.ledger.first_nights(["churn", "twin"]) == {}
    releasing.accept(rails, NOW, by="tests")
    releasing.accept(rails, NOW, by="tests")
    assert rails.ledger.first_nights(["churn", "twin"]) == {"twin": date(2025, 2, 5)}
    assert [(event.kind, event.night) for event in rails.ledger.events("twin")] == [
        ("model_accepted", date(2025, 2, 5))
    ]
    shutil.move(checkout / "models" / "twin", checkout / "twin")
    releasing.accept(rails, NOW, by="tests")
    spine = find(checkout / "models", "churn").prediction.spine
    settled = TableState(night=date(2025, 2, 7), table=spine, state="published")
    rails.ledger.publish([settled], settled.night, "done", FeaturesSummary())
    shutil.move(checkout / "twin", checkout / "models" / "twin")
    releasing.accept(rails, NOW, by="tests")
    assert rails.ledger.first_nights(["churn", "twin"]) == {"twin": date(2025, 2, 8)}


def settle(rails: Rails, day: int, *scored: str) -> None:
    """A night whose features are there, and the models that were scored on it."""
    night = date(2025, 2, day)
    rails.ledger.record_stage("subscription", night, "done", FeaturesSummary())
    for name in scored:
        rails.ledger.record_stage(name, night, "done", ShadowSummary(night=night))


def test_a_model_that_takes_the_place_of_another_begins_with_what_that_has_not_scored(
    rails: Rails, checkout: Path
) -> None:
    """Renamed between features and shadow: the night is scored under its new name."""
    settle(rails, 3, "churn")
    settle(rails, 4)
    shutil.move(checkout / "models" / "churn", checkout / "models" / "lapse")
    releasing.accept(rails, NOW, by="tests")
    assert rails.ledger.first_nights(["lapse"]) == {"lapse": date(2025, 2, 4)}
    settle(rails, 4, "lapse")
    shutil.move(checkout / "models" / "lapse", checkout / "models" / "churn")  # and back: this one scored the night
    releasing.accept(rails, NOW, by="tests")
    assert rails.ledger.first_nights(["churn"]) == {"churn": date(2025, 2, 5)}


def test_a_model_that_is_back_before_another_night_was_settled_was_never_away(rails: Rails, checkout: Path) -> None:
    shutil.copytree(checkout / "models" / "churn", checkout / "models" / "twin")
    settle(rails, 3)
    releasing.accept(rails, NOW, by="tests")
    assert rails.ledger.first_nights(["churn", "twin"]) == {"twin": date(2025, 2, 4)}
    settle(rails, 4)
    for name in ("churn", "twin"):
        shutil.move(checkout / "models" / name, checkout / name)
        releasing.accept(rails, NOW, by="tests")
        shutil.move(checkout / name, checkout / "models" / name)
        releasing.accept(rails, NOW, by="tests")
    assert rails.ledger.first_nights(["churn", "twin"]) == {"twin": date(2025, 2, 4)}


def test_what_of_the_checkout_waits_is_said_of_every_model(rails: Rails, checkout: Path) -> None:
    """Also by the commands that speak of the checkout, and by the one that speaks of what is in force."""
    settings = rails.settings
    assert str(release.pending(settings)) == ""
    shutil.copytree(checkout / "models" / "churn", checkout / "models" / "twin")
    change(checkout / SPEC, "tier: 3", "tier: 2")
    shutil.rmtree(checkout / "models" / "sla_breach")
    append(checkout / "expectations" / "leakage.yaml", "# seen\n")
    (checkout / "models" / "hotel_cancellation" / "spec.yaml").unlink()  # which takes nobody away
    told = release.pending(settings)
    assert told.models == {
        "twin": "new", "churn": "changed", "sla_breach": "removed", "hotel_cancellation": "changed",
    }  # fmt: skip
    assert told.shared == release.Changes(0, 1, 0)
    for sentence in (told_by(settings, "models"), told_by(settings, "validate"), told_by(settings, "status")):
        assert "Not in force yet: churn (changed), hotel_cancellation (changed), sla_breach (removed)" in sentence
        assert "twin (new); files of all models (0 new, 1 changed, 0 gone)" in sentence
        assert "tiltyard release" in sentence
    rows = json.loads(told_by(settings, "models", "--json", stderr=False))
    assert {row["model"]: row["not_in_force_yet"] for row in rows if row["not_in_force_yet"]} == {
        "twin": "new", "churn": "changed", "sla_breach": "removed",
    }  # fmt: skip
    documents = json.loads(told_by(settings, "status", "--json", stderr=False))
    ours = {document["model"]: document["not_in_force_yet"] for document in documents}
    assert (ours["twin"], ours["churn"], ours["sla_breach"]) == ("new", "changed", "removed")
    assert "twin: new in the checkout and not in force yet" in told_by(settings, "status", "twin", stderr=False)
    change(checkout / "models" / "twin" / "spec.yaml", "tier: 3", "tier: 7")
    for words in (("status",), ("status", "twin")):
        assert "twin is new, and its spec does not hold: " in told_by(settings, *words)
    change(checkout / "models" / "twin" / "spec.yaml", "tier: 7", "tier: 3")

    shutil.rmtree(checkout / "models" / "hotel_cancellation")
    releasing.accept(rails, NOW, by="tests")
    assert str(release.pending(settings)) == ""
    assert "Not in force" not in told_by(settings, "models")


def told_by(settings: Settings, *words: str, stderr: bool = True) -> str:
    """What a command says in a process of its own."""
    environment = airflow_settings.tiltyard_env(settings) | {"PYTHONPATH": str(ROOT / "plugins")}
    environment["TILTYARD_SOURCES"] = ",".join(settings.sources)
    command = [sys.executable, "-m", "tiltyard.cli", *words]
    done = subprocess.run(command, env=os.environ | environment, capture_output=True, text=True, timeout=120)
    return " ".join(done.stderr.split()) if stderr else done.stdout


def test_a_column_that_others_need_is_not_renamed_under_them(rails: Rails, checkout: Path) -> None:
    """Nobody touched churn; its label was rewritten, and so churn would have none tonight."""
    change(checkout / "dbt/models/labels/lbl_churn.yml", "name: label", "name: outcome")
    (refused,) = releasing.accept(rails, NOW, by="tests").refused
    assert refused.path == "dbt/models/labels/lbl_churn.yml"
    assert refused.reason.startswith("churn needs it as it was: ")
    assert "lbl_churn has no column label" in refused.reason


def test_a_release_that_somebody_changed_on_the_disk_is_written_anew(rails: Rails) -> None:
    folder = release.current(rails.settings)
    assert folder is not None
    (folder / SPEC).write_text("tier: 1\n", encoding="utf-8")
    releasing.accept(rails, NOW, by="tests")
    assert release.stored(release.current(rails.settings)) == release.working(rails.settings)


KILLED = """
import os, signal, sys
from tiltyard import rails, release
from tiltyard.clock import now
from tiltyard.prepare import releasing
from tiltyard.settings import Settings

place, step = sys.argv[1].split(".")
owner = release if place == "release" else rails.Ledger
setattr(owner, step, lambda *given: os.kill(os.getpid(), signal.SIGKILL))
with rails.opened(Settings.model_validate_json(sys.stdin.read())) as opened:
    releasing.accept(opened, now(), by="tests")
"""


@pytest.mark.parametrize("step", ["release.keep", "ledger.accept", "release.put_in_force"])
def test_killed_anywhere_the_release_in_force_stays_and_the_next_attempt_goes_on(
    rails: Rails, checkout: Path, step: str
) -> None:
    change(checkout / SPEC, "tier: 3", "tier: 2")
    content = rails.settings.model_dump_json()
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "plugins")}
    killed = subprocess.run([sys.executable, "-c", KILLED, step], input=content, text=True, env=environment)
    assert killed.returncode == -signal.SIGKILL
    assert find(release.in_force(rails.settings).models, "churn").tier == 3
    accepted = releasing.accept(rails, NOW, by="tests")
    assert isinstance(accepted, AcceptedRelease)
    assert find(release.in_force(rails.settings).models, "churn").tier == 2
    assert rails.ledger.release() == accepted


def test_a_checkout_without_its_models_takes_nobody_away(rails: Rails, checkout: Path) -> None:
    before = rails.ledger.release()
    assert before is not None
    (checkout / "models").rename(checkout / "aside")
    accepted = releasing.accept(rails, NOW, by="tests")
    (refused,) = accepted.refused
    assert (refused.path, refused.stands, accepted.digest) == ("models", True, before.digest)
    assert "TILTYARD_MODELS" in refused.reason
    (checkout / "aside").rename(checkout / "models")
    assert releasing.accept(rails, NOW, by="tests").refused == ()


def test_a_first_release_needs_every_folder(settings: Settings, checkout: Path) -> None:
    (checkout / "models").rename(checkout / "aside")
    with rails_module.opened(settings) as opened, pytest.raises(BadInput, match="TILTYARD_MODELS"):
        releasing.accept(opened, NOW, by="tests")


def test_one_text_that_dbt_does_not_name_costs_a_first_release_nothing_else(settings: Settings, checkout: Path) -> None:
    """Of a new home every file of dbt is a change, and none of them goes without the project's own file."""
    described = "    description: "
    view = checkout / f"{VIEW}.yml"
    view.write_text(view.read_text().replace(described, f"{described}\"{{{{ var('nobody') }}}}\" # ", 1))
    with rails_module.opened(settings) as opened:
        accepted = releasing.accept(opened, NOW, by="tests")
        stored = release.stored(release.current(opened.settings))
    refused = {text.path: text.reason for text in accepted.refused if text.path.startswith("dbt/")}
    assert "Required var 'nobody' not found" in refused.pop(f"{VIEW}.sql")
    assert "ftr_customer__activity" in refused.pop(EXPOSURES), "which names the models' tables, for people"
    assert refused == {}
    gone = {path for path in release.working(settings) if path not in stored}
    assert {f"{VIEW}.sql", f"{VIEW}.yml", SPEC} <= gone
    assert all(path.startswith((VIEW, EXPOSURES, "models/churn/")) for path in gone), gone


def test_what_is_no_fault_of_a_text_refuses_none(rails: Rails, checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A refusal would stand until somebody changes the text, long after who was away is back."""

    def away(*_: object) -> None:
        raise Unavailable("The store is away.")

    append(checkout / f"{VIEW}.sql", "\n-- a line more\n")
    before = rails.ledger.release()
    with monkeypatch.context() as patch:
        patch.setattr(releasing.transform, "parse", away)
        with pytest.raises(Unavailable):
            releasing.accept(rails, NOW, by="tests")
    assert rails.ledger.release() == before
    assert releasing.accept(rails, NOW, by="tests").refused == ()


def test_where_no_release_can_be_written_the_one_in_force_goes_on_until_one_can(rails: Rails, checkout: Path) -> None:
    """A text that somebody changed, and a folder of the home: neither is a reason to hold the night of any source."""
    before, folder = rails.ledger.release(), release.current(rails.settings)
    assert before is not None and folder is not None
    append(checkout / SPEC, "# a line more\n")
    append(checkout / f"{VIEW}.sql", "\n-- a line more\n")
    shutil.copytree(checkout / "models" / "churn", checkout / "models" / "other")
    next_one = folder.with_name(release.digest(release.working(rails.settings))[: len(folder.name)])
    next_one.write_text("in the way")
    for _ in range(2):
        told = releasing.accept(rails, NOW, by="ann")
        assert (told.digest, release.current(rails.settings)) == (before.digest, folder)
        assert (told.released_by, told.changed) == ("ann", ()), "nobody has changed anything by it"
        assert [(refused.path, refused.stands) for refused in told.refused] == [
            (f"{VIEW}.sql", True), ("models/churn", True), ("models/other", False),
        ]  # fmt: skip
        assert f"{folder.parent} takes no files (Not a directory); make room" in str(told.refused[0])
        assert len(rails.ledger.releases()) == 2, "it is told once"
    next_one.unlink()
    assert releasing.accept(rails, NOW, by="tests").refused == ()
    assert release.current(rails.settings) == next_one
