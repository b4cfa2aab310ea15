"""The outcome of online answers per arm, from really spooled records, against a slow reading of the rule."""

import json
from datetime import datetime, timedelta
from typing import Any

import numpy as np
import pandas as pd
import pytest

from tests.unit.answered.test_request_log import encoded, ids, request
from tests.unit.conftest import FIRST, Arena
from tiltyard.answered import arm, request_log
from tiltyard.answered.report import LogDelivery
from tiltyard.edge import describe, status
from tiltyard.judge import promotion, shadow
from tiltyard.records import ShadowSummary
from tiltyard.serve.spool import Spool
from tiltyard.spec import Spec
from tiltyard.tables import ONLINE_EVALUATION
from tiltyard.train import evaluation


def spool(arena: Arena, records: list[dict[str, Any]]) -> LogDelivery:
    log = Spool(arena.rails.settings.spool)
    for record in records:
        log.write(encoded(record))
    log.close()
    return request_log.deliver(arena.rails)


def asked(model: str, nights: int, per_night: int, seed: int) -> list[dict[str, Any]]:
    """What callers may ask: of every entity of arena.duel some minutes after its spine row, some never, some twice;
    one in five is the challenger's, and some of either arm fall back."""
    rng = np.random.default_rng(seed)
    records = []
    for place in range(nights * per_night):
        name = f"t{place:05d}"
        spoken = FIRST + timedelta(days=place // per_night, minutes=place % per_night)
        for again in range(int(rng.integers(0, 3))):
            at = spoken + timedelta(minutes=float(rng.choice([0, 5, 600, 1439, 1440, 3000, -1])))
            is_challenger = place % 5 == 0
            tier = str(rng.choice(["challenger" if is_challenger else "champion", "previous", "safe_default"]))
            records.append(
                request(
                    model,
                    request_id=f"{model}-{place}-{again}",
                    entity_id=[name, "nobody", None][int(rng.choice(3, p=[0.8, 0.1, 0.1]))],
                    prediction_time=at.isoformat(),
                    scored_at=(at + timedelta(days=int(rng.integers(0, 9)))).isoformat(),
                    arm="challenger" if is_challenger else "champion",
                    version={"champion": 1, "challenger": 2, "previous": 3, "safe_default": None}[tier],
                    tier=tier,
                    score=float(rng.random()),
                )
            )
    return records


def by_hand(arena: Arena, spec: Spec, records: list[dict[str, Any]], as_of: datetime) -> dict[Any, dict[str, Any]]:
    """(arm, version, tier) → counts and Brier score, a record at a time."""
    lake = arena.rails.lake
    spine = lake.query(f"select ticket_id, prediction_time from {{spines.{spec.prediction.spine}}}", as_of)
    labels = lake.query(f"select ticket_id, prediction_time, label from {{labels.{spec.label.table}}}", as_of)
    times: dict[str, list[datetime]] = {}
    for row in spine.itertuples():
        times.setdefault(row.ticket_id, []).append(row.prediction_time)
    known = {(row.ticket_id, row.prediction_time): float(row.label) for row in labels.itertuples()}
    cutoff = datetime.combine((as_of - timedelta(days=2)).date(), datetime.min.time(), as_of.tzinfo)
    found: dict[Any, dict[str, Any]] = {}
    for record in records:
        at = datetime.fromisoformat(record["prediction_time"])
        if at > as_of:
            continue
        before = [time for time in times.get(record["entity_id"], []) if time <= at]
        spoken = max(before, default=None)
        if spoken is not None and at - spoken >= timedelta(days=1):
            spoken = None
        label = known.get((record["entity_id"], spoken))
        for version, tier in ((record["version"], record["tier"]), (None, "all")):
            one = found.setdefault((record["arm"], version, tier), {"losses": [], "requests": 0})
            one["requests"] += 1
            if spoken is None:
                state = "unmatched"
            elif spoken < cutoff:
                state = "missing" if label is None else "matured"
            else:
                state = "immature"
                one["early"] = one.get("early", 0) + (label is not None)
            one[state] = one.get(state, 0) + 1
            if state == "matured" and spoken >= cutoff - timedelta(days=7):
                one["losses"].append((record["score"] - label) ** 2)
    return found


def drawn(arena: Arena, spec: Spec, as_of: datetime) -> pd.DataFrame:
    sql = f"select * from {{{ONLINE_EVALUATION}}} where model = $model and night = $night order by arm, version, tier"
    return arena.rails.lake.query(sql, as_of, {"model": spec.name, "night": as_of.date()})


def test_every_arm_version_and_tier_is_what_a_slow_reading_says(arena: Arena) -> None:
    spec = arena.spec("arm_slow")
    end = arena.duel(spec, {1: 0.1, 2: 0.3}, nights=12, per_night=20)
    arena.rails.lake.connection.execute(
        f"delete from lake.labels.{spec.label.table} where ticket_id like 't000_5'"  # truth that never comes
    )
    arena.publish(arena.rails.lake.snapshot())
    early = pd.DataFrame({"ticket_id": [f"t{place:05d}" for place in range(220, 230)], "label": True})
    early["prediction_time"] = [FIRST + timedelta(days=11, minutes=place) for place in range(10)]
    arena.label(spec, early.assign(available_at=end))
    records = asked(spec.name, 12, 20, seed=3)
    again = [record | {"score": 0.99, "scored_at": (end + timedelta(days=20)).isoformat()} for record in records[::7]]
    spool(arena, [*records, *again])  # a request that is sent again counts once, as it was answered first
    arm.record(arena.rails, spec, end)
    rows = drawn(arena, spec, end)
    wanted = by_hand(arena, spec, records, end)
    assert len(rows) == len(wanted) == 8
    for row in rows.itertuples():
        one = wanted[row.arm, None if pd.isna(row.version) else int(row.version), row.tier]
        assert row.requests == one["requests"]
        for name in ("missing", "immature", "early", "unmatched"):
            assert getattr(row, name) == one.get(name, 0), (row.arm, row.tier, name)
        assert row.matured == len(one["losses"]) > 0
        assert row.brier == pytest.approx(np.mean(one["losses"]))
        assert row.brier_low <= row.brier <= row.brier_high
    assert rows["unmatched"].sum() > 0 and rows["missing"].sum() > 0 and rows["early"].sum() > 0


def test_a_late_delivery_is_picked_up_and_a_rerun_writes_the_same(arena: Arena) -> None:
    spec = arena.spec("arm_late")
    end = arena.duel(spec, {1: 0.1}, nights=6, per_night=20)
    records = asked(spec.name, 6, 20, seed=5)
    spool(arena, records[::2])
    first = arm.record(arena.rails, spec, end)
    assert first == arm.record(arena.rails, spec, end)
    spool(arena, records[1::2])  # the service was cut off, and delivers nights that were evaluated already
    second = arm.record(arena.rails, spec, end)
    assert second["champion"][0].requests > first["champion"][0].requests
    wanted = by_hand(arena, spec, records, end)
    assert len(drawn(arena, spec, end)) == len(wanted)
    assert second["champion"][0].brier == pytest.approx(np.mean(wanted["champion", None, "all"]["losses"]))


def test_what_was_not_known_yet_is_not_evaluated(arena: Arena) -> None:
    """An evaluation of a past night sees neither later requests nor later truth."""
    spec = arena.spec("arm_past")
    end = arena.duel(spec, {1: 0.1}, nights=6, per_night=20)
    records = asked(spec.name, 6, 20, seed=6)
    spool(arena, records)
    past = end - timedelta(days=2)
    arm.record(arena.rails, spec, past)
    for row in drawn(arena, spec, past).itertuples():
        one = by_hand(arena, spec, records, past)[row.arm, None if pd.isna(row.version) else int(row.version), row.tier]
        assert (row.requests, row.matured) == (one["requests"], len(one["losses"]))


def test_shadow_scores_share_the_truth_of_the_request(arena: Arena) -> None:
    spec = arena.spec("arm_shadow")
    end = arena.duel(spec, {1: 0.1, 2: 0.2}, nights=6, per_night=20)
    records = [record | {"entity_id": f"t{place:05d}"} for place, record in enumerate(asked(spec.name, 6, 20, seed=7))]
    records = [
        record | {"prediction_time": (FIRST + timedelta(days=place // 20, minutes=place % 20)).isoformat()}
        for place, record in enumerate(records[:100])
    ]
    seen = [
        {
            "kind": "shadow",
            "request_id": record["request_id"],
            "row": 0,
            "model": spec.name,
            "version": 2,
            "score": None if place % 10 == 0 else 1 - record["score"],
            "scored_at": record["scored_at"],
        }
        for place, record in enumerate(records)
    ]
    spool(arena, seen)  # the shadow's segment may come first
    spool(arena, [*records, *seen[:5]])
    found = arm.record(arena.rails, spec, end)
    (one,) = found["shadow"]
    assert (one.version, one.tier, one.requests) == (2, "shadow", 90)
    rows = arm.outcomes(arena.rails, spec, end)
    other = rows[(rows["arm"] == "shadow") & rows["is_matured"] & rows["label"].notna()]
    assert one.brier == pytest.approx(np.mean((other["score"] - other["label"]) ** 2))
    assert one.matured == len(other) > 50


def test_a_number_is_measured_by_its_absolute_error(arena: Arena) -> None:
    spec = arena.spec(
        "arm_number",
        label={"table": "lbl_arm_number", "horizon": "2d", "bounds": [0, 100]},
        gate={"metric": "absolute_error"},
        estimator={"class": "xgboost.XGBRegressor"},
        light={"class": "sklearn.linear_model.Ridge"},
        fallback={"safe_default": 20},
    )
    end = FIRST + timedelta(days=6)
    at = pd.to_datetime([FIRST + timedelta(days=day) for day in range(4)])
    rows = pd.DataFrame({"arm": "champion", "version": 1, "tier": "champion", "score": [10.0, 20, 30, 150]})
    rows = rows.assign(prediction_time=at, night=[(time + timedelta(days=1)).date() for time in at])
    rows = rows.assign(is_matured=[True, True, True, True], label=[12.0, 20, 27, 90])
    whole, own = arm.evaluate(spec, end, rows)
    assert (whole.tier, own.tier, own.version) == ("all", "champion", 1)
    assert own.evaluation.figures["absolute_error"] == pytest.approx((2 + 0 + 3 + 10) / 4)
    assert "brier" not in own.evaluation.figures


def test_the_night_delivers_evaluates_and_says_so(arena: Arena) -> None:
    spec = arena.spec("arm_night")
    end = arena.duel(spec, {1: 0.05})
    log = Spool(arena.rails.settings.spool)
    records = asked(spec.name, 8, 60, seed=8)
    log.write(encoded(*records))
    log.close()
    found = shadow.evaluate(arena.rails, spec, end)  # nobody delivered by hand
    assert len(ids(arena.rails, spec.name)) == len(records)
    assert set(found.online) == {"champion", "challenger"}
    arena.rails.ledger.record_stage(spec.name, end.date(), "done", ShadowSummary())
    document = status.status(arena.rails, spec, end)
    written = {name: [figures.to_json() for figures in own] for name, own in found.online.items()}
    assert document.to_json()["online"] == json.loads(json.dumps(written))
    line = next(line for line in describe.model(document).splitlines() if line.startswith("  online"))
    assert f"challenger {found.online['challenger'][0].requests} requests, " in line
    assert f"Brier {found.online['challenger'][0].brier:.3f} (" in line
    judged = promotion.judge(arena.rails, spec, end)
    assert judged.verdict == "promote"
    page = (arena.rails.settings.reports / judged.page).read_text(encoding="utf-8")
    assert "answers given online" in page and f"{found.online['challenger'][0].brier:.4g}" in page
    (kept,) = arena.rails.ledger.decisions(spec.name)
    spool(arena, [request(spec.name, request_id="later", tier="light")])
    arm.record(arena.rails, spec, end)  # more arrives: what was decided on is the same, and so is the page
    assert promotion.judge(arena.rails, spec, end) == judged
    assert arena.rails.ledger.decisions(spec.name) == [kept] and not arena.rails.ledger.events(spec.name)


def test_a_model_that_nobody_asked_has_no_online_evaluation(arena: Arena) -> None:
    spec = arena.spec("arm_nobody")
    end = arena.duel(spec, {1: 0.1}, nights=4, per_night=5)
    assert arm.record(arena.rails, spec, end) == {}
    assert evaluation.ALL == arm.ALL
