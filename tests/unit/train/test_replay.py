"""The millisecond test: what it decides from counts, what it says when it cannot be run, its page."""

import json
from datetime import timedelta
from pathlib import Path

import pytest

from tests.lakes import COLUMNS, FEATURES, SPINES, fill, instant, small_spec
from tests.spec.test_millisecond import NIGHT, VISIT, again, at, predict, publish, write
from tests.unit.cli.test_cli import tiltyard
from tiltyard import clock
from tiltyard.errors import BadInput
from tiltyard.leak.suspicion import Suspicion
from tiltyard.rails import Rails
from tiltyard.tables import LANDED_FILE, Table
from tiltyard.train import comparison, replay, replay_page
from tiltyard.train.replay_document import ReplayDocument

DAY = timedelta(days=1)


def tally(changed: int, rows: int, positives: tuple[int, int] = (0, 0), negatives: tuple[int, int] = (0, 0)):
    kinds = dict.fromkeys(comparison.KINDS, 0) | {"blanked_since": changed}
    return comparison.Tally("size", "ftr_shop__state", rows, kinds, positives, negatives)


# -- deciding -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("counted", "severity"),
    [
        (tally(0, 1000, (0, 50), (0, 950)), None),
        (tally(4, 1000, (4, 50), (0, 950)), "critical"),  # rare, and only where the label is positive
        (tally(4, 1000, (0, 50), (4, 950)), "warning"),  # as rare, and where most rows are
        (tally(60, 1000, (3, 50), (57, 950)), "critical"),  # over the limit, whatever it follows
        (tally(4, 1000), "warning"),  # no label has matured
        (tally(0, 0), None),
    ],
)
def test_a_change_is_judged_by_its_rate_and_by_what_it_follows(counted: comparison.Tally, severity: str | None) -> None:
    [change] = replay.decide([counted], 0.05)
    assert change.severity == severity
    assert change.interval[0] <= change.rate <= change.interval[1]


def test_the_more_features_change_the_more_a_change_must_follow_the_label() -> None:
    counted = tally(2, 1000, (2, 50), (0, 950))  # p = 0.0025 by itself
    assert replay.decide([counted], 0.05)[0].severity == "critical"
    changed, same = tally(1, 1000, (0, 50), (1, 950)), tally(0, 1000, (0, 50), (0, 950))
    assert replay.decide([counted, *[same] * 19], 0.05)[0].severity == "critical"
    assert replay.decide([counted, *[changed] * 19], 0.05)[0].severity == "warning"


def test_the_worst_comes_first() -> None:
    ranked = replay.decide([tally(0, 100), tally(2, 100), tally(90, 100), tally(4, 100)], 0.05)
    assert [change.tally.changed for change in ranked] == [90, 4, 2, 0]


def test_nothing_tested_is_no_pass() -> None:
    same = replay.decide([tally(0, 100)], 0.05)
    assert replay.verdict(same, tested=100) == "pass"
    assert replay.verdict(same, tested=0) == "untestable"
    assert replay.verdict(replay.decide([tally(2, 100)], 0.05), tested=0) == "warn"


@pytest.mark.parametrize(  # Newcombe 1998, Statistics in Medicine 17, table I: method 3
    ("count", "rows", "low", "high"), [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611)]
)
def test_the_interval_is_wilsons(count: int, rows: int, low: float, high: float) -> None:
    assert replay.wilson(count, rows, 0.05) == (pytest.approx(low, abs=1e-4), pytest.approx(high, abs=1e-4))


def test_the_nights_replayed_before_training(tmp_path: Path) -> None:
    as_of = clock.parse_as_of("2024-06-30")
    short, long = small_spec(tmp_path / "short"), small_spec(tmp_path / "long", horizon="60d")
    assert replay.windows(short, as_of) == ((as_of - 29 * DAY, as_of),)
    assert replay.windows(long, as_of) == ((as_of - 87 * DAY, as_of - 60 * DAY), (as_of - 27 * DAY, as_of))


# -- what cannot be tested, and is said ---------------------------------------------------------------------


@pytest.fixture
def shop(rails: Rails) -> Rails:
    for table, columns in COLUMNS.items():
        rails.lake.ensure(Table(table, columns))
    fill(rails, SPINES, [VISIT])
    write(rails, "10", "31Jan10:00", "31Jan10:00")
    return rails


def why(result: replay.Replay) -> str:
    assert result.verdict == "untestable"
    return "; ".join(one.why for one in result.untested)


def test_a_model_without_predictions(shop: Rails, tmp_path: Path) -> None:
    assert "has made none yet" in why(again(shop, tmp_path))
    predict(shop, [VISIT])
    shop.lake.connection.execute("update lake.ops.prediction set model = 'other'")
    assert "has made none yet" in why(again(shop, tmp_path))


def test_a_window_without_predictions_names_those_there_are(shop: Rails, tmp_path: Path) -> None:
    predict(shop, [VISIT])
    publish(shop)
    empty = replay.replay_nights(shop, small_spec(tmp_path), [(NIGHT + 5 * DAY, NIGHT + 6 * DAY)])
    assert "has none of these nights; it has some from 2024-02-02 to 2024-02-02" in why(empty)


def test_nothing_written_since(shop: Rails, tmp_path: Path) -> None:
    predict(shop, [VISIT])
    assert "nothing was written since" in why(again(shop, tmp_path))


def test_a_night_that_was_predicted_with_later_deliveries_in_the_lake(shop: Rails, tmp_path: Path) -> None:
    shop.lake.ensure(LANDED_FILE)
    landed = "insert into lake.ops.landed_file (source, file, available_at) values ('shops', '2024-02-20.csv', ?)"
    shop.lake.connection.execute(landed, [instant("2024-02-21")])
    predict(shop, [VISIT])
    write(shop, "11", "05Feb10:00", "05Feb10:00")
    assert "held deliveries of later nights" in why(again(shop, tmp_path))
    write(shop, "12", "31Jan11:00", "31Jan11:00")
    assert again(shop, tmp_path).verdict == "fail"  # it cannot acquit; it can convict


def test_snapshots_that_have_been_expired(shop: Rails, tmp_path: Path) -> None:
    made_from = predict(shop, [VISIT])
    write(shop, "12", "31Jan11:00", "31Jan11:00")
    versions = ", ".join(map(str, range(1, made_from + 1)))
    shop.lake.connection.execute(f"call ducklake_expire_snapshots('lake', versions => [{versions}])")
    assert "have been expired" in why(again(shop, tmp_path))


def test_expired_nights_are_told_beside_those_that_could_be_tested(shop: Rails, tmp_path: Path) -> None:
    """Maintenance takes the first night's snapshots away and moves files; the second night is tested all the same."""
    made_from = predict(shop, [VISIT])
    later = {**VISIT, "visit_id": "v2", "prediction_time": VISIT["prediction_time"] + DAY}
    fill(shop, SPINES, [later])
    predict(shop, [later], NIGHT + DAY)
    write(shop, "12", "31Jan11:00", "31Jan11:00")
    versions = ", ".join(map(str, range(1, made_from + 1)))
    connection = shop.lake.connection
    connection.execute(f"call ducklake_expire_snapshots('lake', versions => [{versions}])")
    connection.execute("call ducklake_merge_adjacent_files('lake')")
    connection.execute("call ducklake_cleanup_old_files('lake', cleanup_all => true)")
    publish(shop)
    result = replay.replay_nights(shop, small_spec(tmp_path), [(NIGHT, NIGHT + DAY)])
    assert (result.rows, result.verdict) == (1, "fail")
    assert [(one.rows, one.why) for one in result.untested] == [
        (1, "the lake's snapshots they were made from have been expired")
    ]
    [example] = result.examples["size"]
    assert (example.entity, example.then.value, example.now.value) == ("v2", 10, 12)
    assert example.commit is not None


def test_predictions_of_rows_that_their_snapshot_does_not_hold(shop: Rails, tmp_path: Path) -> None:
    predict(shop, [VISIT, {**VISIT, "visit_id": "v2"}])
    write(shop, "11", "05Feb10:00", "05Feb10:00")
    result = again(shop, tmp_path)
    assert (result.rows, result.verdict) == (1, "pass")
    assert [(one.rows, one.why) for one in result.untested] == [
        (1, "their rows are not in the spine at the snapshot that they name")
    ]


def test_a_feature_that_the_view_did_not_have_yet(shop: Rails, tmp_path: Path) -> None:
    predict(shop, [VISIT])
    shop.lake.connection.execute("alter table lake.features.ftr_shop__state add column is_new boolean")
    result = again(shop, tmp_path)
    assert [(one.what, one.why.split(" (")[0]) for one in result.untested] == [
        ("is_new", "the view did not have it yet")
    ]
    assert result.verdict == "pass"


def test_a_view_that_was_not_there_yet(rails: Rails, tmp_path: Path) -> None:
    rails.lake.ensure(Table(SPINES, COLUMNS[SPINES]))
    fill(rails, SPINES, [VISIT])
    predict(rails, [VISIT])
    for table, columns in COLUMNS.items():
        rails.lake.ensure(Table(table, columns))
    assert "has no table 'features.ftr_shop__state' at snapshot" in why(again(rails, tmp_path))


def test_a_sum_in_another_order_is_the_same_number(shop: Rails, tmp_path: Path) -> None:
    connection = shop.lake.connection
    connection.execute("alter table lake.features.ftr_shop__state add column rate double")
    connection.execute("update lake.features.ftr_shop__state set rate = 0.1 + 0.2")
    predict(shop, [VISIT])
    connection.execute("update lake.features.ftr_shop__state set rate = 0.3")
    assert again(shop, tmp_path).verdict == "pass"
    connection.execute("update lake.features.ftr_shop__state set rate = 0.300001")
    assert again(shop, tmp_path).verdict == "fail"


def test_what_was_counted_with_an_erased_one_is_no_past_that_was_written_over(shop: Rails, tmp_path: Path) -> None:
    """A shop is counted anew without a visit of somebody who was erased. That convicts nobody, and is told."""
    predict(shop, [VISIT])
    before = shop.lake.snapshot()
    shop.lake.connection.execute("update lake.features.ftr_shop__state set size = size + 1")
    assert again(shop, tmp_path).verdict == "fail"
    shop.ledger.erasures.touch(1, "ftr_shop__state", ["another shop"], before)
    assert again(shop, tmp_path).verdict == "fail"
    shop.ledger.erasures.touch(1, "ftr_shop__state", ["s1"], before)
    found = again(shop, tmp_path)
    assert [change for change in found.changes if change.severity] == []
    [untold] = found.untested
    assert untold.what == "ftr_shop__state" and "counted with rows of somebody who was erased" in untold.why


# -- bad input ----------------------------------------------------------------------------------------------


def test_bad_input_is_one_sentence(shop: Rails, tmp_path: Path) -> None:
    spec = small_spec(tmp_path)
    with pytest.raises(BadInput, match="No features are published yet"):
        replay.replay_nights(shop, spec, [(NIGHT, NIGHT)])
    publish(shop)
    with pytest.raises(BadInput, match=r"ends \(2024-02-01\) before it begins \(2024-02-02\); swap --from and --to"):
        replay.replay_nights(shop, spec, [(NIGHT, NIGHT - DAY)])
    with pytest.raises(BadInput, match=r"no snapshot 4711 \(any more\); the newest is"):
        replay.replay_nights(shop, spec, [(NIGHT, NIGHT)], at=4711)
    with pytest.raises(BadInput, match="no share of rows"):
        replay.replay_nights(shop, spec, [(NIGHT, NIGHT)], limit=5.0)


def test_the_command_line_names_the_models_there_are() -> None:
    wrong = tiltyard("leakage", "replay", "--model", "chrun", "--from", "2025-01-01", "--to", "2025-01-02", "--json")
    assert wrong.returncode == 2
    assert "There is no model 'chrun'; the models are: churn" in json.loads(wrong.stdout)["error"]


def test_what_nobody_could_tell_and_a_page_that_cannot_be_written_are_no_success(shop: Rails, tmp_path: Path) -> None:
    predict(shop, [VISIT])
    publish(shop)
    small_spec(tmp_path)
    asked = ["leakage", "replay", "--model", "small", "--from", str(NIGHT.date()), "--to", str(NIGHT.date()), "--json"]
    models = {"TILTYARD_MODELS": str(tmp_path / "models")}
    unknown = tiltyard(*asked, settings=shop.settings, **models)
    assert (unknown.returncode, json.loads(unknown.stdout)["verdict"]) == (1, "untestable")
    folder = tiltyard(*asked, "--report", str(tmp_path), settings=shop.settings, **models)
    assert folder.returncode == 2
    assert "is a folder; name a file" in json.loads(folder.stdout)["error"]


# -- showing ------------------------------------------------------------------------------------------------


def test_what_is_shown_is_escaped_and_whole(shop: Rails, tmp_path: Path) -> None:
    predict(shop, [VISIT])
    fill(
        shop,
        FEATURES,
        [{"shop_id": "s1", "size": 10, "mood": "<b>bad</b>", "is_open": True,
          "event_time": at("31Jan10:00"), "available_at": at("31Jan10:01")}],
    )  # fmt: skip
    result = again(shop, tmp_path)
    replay_page.write(result, tmp_path / "pages" / "replay.html")
    page = (tmp_path / "pages" / "replay.html").read_text()
    assert "&lt;b&gt;bad&lt;/b&gt;" in page and "<b>bad" not in page
    assert "http" not in page and "<script" not in page  # it needs nothing else
    assert "v1 at 2024-02-01 12:00:00 was good in snapshot" in replay_page.lines(result)
    assert list(tmp_path.glob("pages/.*")) == []


def test_its_findings_have_the_shape_of_all_findings(shop: Rails, tmp_path: Path) -> None:
    predict(shop, [VISIT])
    write(shop, "12", "31Jan11:00", "31Jan11:00")
    result = again(shop, tmp_path)
    [finding] = result.findings
    assert isinstance(finding, Suspicion)
    assert (finding.feature, finding.severity, finding.kind) == ("size", "critical", "stale_then")
    assert finding.kind in comparison.KINDS
    document = json.loads(json.dumps(ReplayDocument.of(result).to_json(), allow_nan=False))
    assert document["verdict"] == "fail"
    assert document["findings"][0]["examples"][0]["now"]["value"] == 12
    assert ReplayDocument.from_json(document) == ReplayDocument.of(result)


def test_its_document_holds_all_that_was_counted(shop: Rails, tmp_path: Path) -> None:
    predict(shop, [VISIT])
    write(shop, "12", "31Jan11:00", "31Jan11:00")
    result = again(shop, tmp_path)
    document = ReplayDocument.of(result).to_json()
    assert (document["from"], document["to"]) == ("2024-02-02", "2024-02-02")
    assert {name: document[name] for name in ("model", "rows", "tested", "nights", "matured", "late_rows")} == {
        "model": "small", "rows": 1, "tested": 1, "nights": 1, "matured": 0, "late_rows": 0,
    }  # fmt: skip
    features = {entry["feature"]: entry for entry in document["features"]}
    assert set(features) == {change.tally.feature for change in result.changes}
    for change in result.changes:
        entry = features[change.tally.feature]
        assert {kind: entry[kind] for kind in comparison.KINDS} == change.tally.kinds
        assert entry["changed"] == change.tally.changed
        assert tuple(entry["interval"]) == change.interval
    [finding], [example] = document["findings"], result.examples["size"]
    assert finding["examples"][0]["prediction_time"] == example.prediction_time.isoformat()
    assert finding["examples"][0]["then"]["available_at"] == example.then.available_at.isoformat()
    assert finding["examples"][0]["commit"]["at"] == example.commit.at.isoformat()


def test_how_many_can_acquit_stands_in_the_first_line_and_in_the_document(shop: Rails, tmp_path: Path) -> None:
    """Predictions of a hindcast only convict: beside many of them, a pass rests on the few others."""
    visits = [{**VISIT, "visit_id": f"w{number}", "prediction_time": at("02Feb12:00")} for number in range(3)]
    fill(shop, SPINES, visits)
    predict(shop, [VISIT])
    shop.lake.ensure(LANDED_FILE)
    landed = "insert into lake.ops.landed_file (source, file, available_at) values ('shops', '2024-02-20.csv', ?)"
    shop.lake.connection.execute(landed, [instant("2024-02-21")])
    predict(shop, visits, NIGHT + DAY)
    write(shop, "11", "05Feb10:00", "05Feb10:00")
    publish(shop)
    for first, tested, verdict in ((NIGHT, 1, "pass"), (NIGHT + DAY, 0, "untestable")):
        result = replay.replay_nights(shop, small_spec(tmp_path), [(first, NIGHT + DAY)])
        assert (result.verdict, result.rows, result.tested) == (verdict, 3 + tested, tested)
        first_line = replay_page.lines(result).splitlines()[0]
        assert f": {tested} of them can acquit; the others were made when the lake held deliveries" in first_line
        document = ReplayDocument.of(result)
        assert (document.tested, document.verdict) == (tested, verdict)
        assert document.reason in first_line
        assert f"{tested} of them can acquit" in replay_page.page(result)
