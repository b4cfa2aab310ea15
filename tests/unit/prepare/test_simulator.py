"""The simulated business: same seed same bytes, honest times, drift and the trap."""

import hashlib
from datetime import date, timedelta

import numpy as np
import pandas as pd
import pytest

from tiltyard import clock
from tiltyard.errors import BadInput
from tiltyard.prepare import ingest
from tiltyard.prepare.simulator import Drift, Simulator

SMALL = {"customers": 600, "days": 60}
TIMES = {
    "customer": "changed_at",
    "login": "logged_in_at",
    "payment": "attempted_at",
    "cancellation": "cancelled_at",
}


@pytest.fixture(scope="module")
def sim() -> Simulator:
    return Simulator(**SMALL)


@pytest.fixture(scope="module")
def tables(sim) -> dict[str, pd.DataFrame]:
    return sim.tables()


def test_the_same_seed_gives_the_same_bytes_and_another_does_not(tmp_path):
    def bytes_of(name: str, seed: int) -> dict[str, bytes]:
        Simulator(seed=seed, customers=100, days=10).land(tmp_path / name)
        return {
            str(path.relative_to(tmp_path / name)): path.read_bytes() for path in (tmp_path / name).rglob("*.parquet")
        }

    first = bytes_of("a", 1)
    assert first == bytes_of("b", 1)
    assert first != bytes_of("c", 2)
    assert len(first) == 4 * 10


@pytest.mark.parametrize(
    ("kind", "cancel_trigger", "digest"),
    [
        ("none", False, "ef73071a221dc5a2"),
        ("sudden", False, "646227767bbe444f"),
        ("gradual", False, "ede6ffbca6d3bcf8"),
        ("prevalence", False, "d826aee9f3fd985b"),
        ("mix", False, "2279384e197062fc"),
        ("unit_change", False, "1852de32fa156210"),
        ("missingness", False, "cb99b6b1038e462a"),
        ("none", True, "8d2576907d114259"),
    ],
)
def test_the_rows_of_a_seed_are_those_of_every_version_before(kind, cancel_trigger, digest):
    """The benchmarks' and docs' figures rest on them. The hazard is left out: its last digits are the processor's."""
    drift = Drift(kind, date(2025, 1, 15), 0.8) if kind != "none" else Drift()
    sim = Simulator(customers=150, days=40, drift=drift, cancel_trigger=cancel_trigger)
    content = hashlib.sha256()
    for name, table in {**sim.tables(), "truth": sim.truth().drop(columns="hazard")}.items():
        for column in table:
            content.update(f"{name}.{column}: {table[column].tolist()}\n".encode())
    assert content.hexdigest()[:16] == digest


def test_the_files_hold_the_tables_day_by_day(sim, tables, tmp_path):
    sim.land(tmp_path)
    for name, table in tables.items():
        files = sorted((tmp_path / name).iterdir())
        assert [file.name for file in files] == [
            f"{sim.start + timedelta(days=day)}.parquet" for day in range(sim.days)
        ]
        parts = [pd.read_parquet(file) for file in files]
        whole = pd.concat([part for part in parts if len(part)], ignore_index=True)
        pd.testing.assert_frame_equal(whole, table, check_dtype=False)
        for file, part in list(zip(files, parts, strict=True))[1:]:
            assert (part.written_at.dt.date == date.fromisoformat(file.stem)).all()


def test_nothing_is_written_before_it_happened_or_after_the_end(sim, tables):
    end = pd.Timestamp(sim.start, tz="UTC") + pd.Timedelta(days=sim.days)
    for name, table in tables.items():
        assert (table.written_at >= table[TIMES[name]]).all()
        assert (table.written_at < end).all()
        assert table.written_at.is_monotonic_increasing


def test_some_log_ins_are_late_and_out_of_order(tables):
    login = tables["login"]
    late = login.written_at - login.logged_in_at > pd.Timedelta(hours=1)
    assert 0.01 < late.mean() < 0.05
    assert set(login.device[late]) == {"phone"}
    assert not login.logged_in_at.is_monotonic_increasing


def test_a_customer_is_there_from_sign_up_to_cancellation(tables):
    customer, gone = tables["customer"], tables["cancellation"].set_index("customer_id").cancelled_at
    signed_up = customer.groupby("customer_id").signed_up_at.agg(["min", "max"])
    assert (signed_up["min"] == signed_up["max"]).all()
    assert gone.index.is_unique
    for name in ("login", "payment"):
        table = tables[name]
        assert (table[TIMES[name]] >= table.customer_id.map(signed_up["min"])).all()
        until = table.customer_id.map(gone)
        assert ((table[TIMES[name]] <= until) | until.isna()).all()


def test_the_crm_shows_the_last_log_in_of_its_time(tables):
    login = tables["login"]
    rows = tables["customer"].dropna(subset="last_login_at")
    assert (rows.last_login_at <= rows.written_at).all()
    some = rows[rows.changed_at > pd.Timestamp("2025-01-10", tz="UTC")].sample(50, random_state=1)
    for row in some[some.changed_at.dt.floor("D") == some.changed_at].itertuples():
        known = login[(login.customer_id == row.customer_id) & (login.logged_in_at < row.changed_at)]
        assert known.logged_in_at.max() <= row.last_login_at


def test_corrections_are_rows_more_with_the_time_of_what_they_correct(tables):
    payment = tables["payment"].groupby("payment_id")
    corrected = payment.filter(lambda rows: len(rows) > 1)
    assert len(corrected) > 10
    pairs = corrected.groupby("payment_id")
    assert (pairs.attempted_at.nunique() == 1).all()
    assert pairs.is_failed.first().all()
    assert not pairs.is_failed.last().any()
    customer = tables["customer"]
    again = customer[customer.duplicated(["customer_id", "changed_at"], keep="last")]
    newer = customer.drop_duplicates(["customer_id", "changed_at"], keep="last")
    both = again.merge(newer, on=["customer_id", "changed_at"], suffixes=("", "_new"))
    assert len(both) > 3
    assert (both.country != both.country_new).all()
    assert (both.written_at < both.written_at_new).all()


def test_a_cancellation_becomes_known_within_the_delay(sim, tables):
    gone = tables["cancellation"]
    delay = gone.written_at - gone.cancelled_at
    assert delay.max() <= sim.label_delay
    assert pd.Timedelta(days=1) < delay.mean() < pd.Timedelta(days=3)


def test_the_truth_tells_the_hazard_and_agrees_with_what_happened():
    truth = Simulator(customers=20_000, days=28).truth()
    happened = truth.cancelled_at.notna()
    assert abs(truth.hazard.mean() - happened.mean()) < 0.003
    order = truth.hazard.rank(pct=True)
    assert 0.8 < (order[happened].mean() - happened.mean() / 2) / (1 - happened.mean()) < 0.95  # its AUC
    assert happened[~truth.is_interested].mean() > 5 * happened[truth.is_interested].mean()


def test_nothing_differs_before_a_drift_and_something_after_it():
    start = date(2025, 1, 29)
    plain = Simulator(**SMALL).tables()
    before = pd.Timestamp(start, tz="UTC")
    for kind in ("sudden", "gradual", "prevalence", "mix", "unit_change", "missingness"):
        drifted = Simulator(**SMALL, drift=Drift(kind, start)).tables()
        for name, table in plain.items():
            pd.testing.assert_frame_equal(
                table[table.written_at < before].reset_index(drop=True),
                drifted[name][drifted[name].written_at < before].reset_index(drop=True),
            )
        assert any(not table.equals(drifted[name]) for name, table in plain.items()), kind


def test_what_the_drifts_do():
    values = {"customers": 4_000, "days": 84}
    start = date(2025, 2, 12)
    later = pd.Timestamp(start, tz="UTC")

    def after(kind: str, table: str) -> pd.DataFrame:
        rows = Simulator(**values, drift=Drift(kind, start)).tables()[table]
        return rows[rows[TIMES[table]] >= later]

    assert after("unit_change", "payment").amount_eur.min() == 900
    assert 0.6 < after("missingness", "customer").country.isna().mean() < 0.8
    assert len(after("prevalence", "cancellation")) > 1.5 * len(after("none", "cancellation"))
    new = after("mix", "customer")
    assert (new[new.signed_up_at >= later].channel == "ads").mean() > 0.7
    truth = Simulator(**values, drift=Drift("sudden", start)).truth()
    old, now = truth[truth.week_start < later], truth[truth.week_start >= later]
    for frame, ratio in ((old, 10), (now, 1)):
        lost = frame.hazard[~frame.is_interested].mean() / frame.hazard[frame.is_interested].mean()
        assert lost > ratio
    assert lost < 5


def test_the_trigger_blanks_the_newest_row_in_place_and_only_the_delivery_tells(tmp_path):
    sim = Simulator(**SMALL, cancel_trigger=True)
    plain = Simulator(**SMALL).tables()["customer"]
    sim.land(tmp_path)
    parts = [pd.read_parquet(file).assign(day=file.stem) for file in sorted((tmp_path / "customer").iterdir())]
    rows = pd.concat([part for part in parts if len(part)], ignore_index=True)
    first = str(sim.start)
    blanked = rows[(rows.written_at.dt.date.astype(str) < rows.day) & (rows.day > first)]
    gone = sim.tables()["cancellation"].set_index("customer_id").cancelled_at
    assert len(blanked) > 20
    assert len(rows) > len(plain)
    assert blanked.last_login_at.isna().all()
    known = blanked[blanked.customer_id.isin(gone.index)]
    cancelled = known.customer_id.map(gone)
    assert (cancelled.dt.date.astype(str) == known.day).all()
    assert (known.written_at < cancelled).all()
    before = (
        rows.merge(known[["customer_id", "changed_at"]]).groupby("customer_id").written_at.agg(["size", "min", "max"])
    )
    assert (before["max"] - before["min"] >= pd.Timedelta(seconds=1)).all()


def test_it_fits_its_contract(rails, tmp_path):
    Simulator(customers=100, days=5).land(rails.settings.landing / "subscription")
    result = ingest.land_night(rails, "subscription", clock.parse_as_of("2025-01-06"))
    assert (result.files, result.quarantined, result.null_available_at) == (20, (), 0)
    for name, time in TIMES.items():
        wrong = f"select count(*) from lake.raw.{name} where event_time <> {time} or available_at <> written_at"
        assert rails.lake.connection.execute(wrong).fetchone() == (0,)


def test_the_default_gives_a_few_hundred_decisions_a_night():
    truth = Simulator().truth()
    active = truth.groupby("week_start").size() / 7
    assert active.between(100, 300).all()
    assert 0.02 < np.mean(truth.cancelled_at.notna()) < 0.06


@pytest.mark.parametrize("values", [{"customers": 0}, {"days": 0}, {"late_share": 2.0}])
def test_an_impossible_business_is_refused(values):
    with pytest.raises(BadInput):
        Simulator(**values)
    with pytest.raises(BadInput, match="sudden"):
        Drift("abrupt")
