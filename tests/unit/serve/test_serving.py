"""The service answers, says who did and why, and goes on when what it stands on is gone.

Real models in ONNX: the champion is a trained graph that breaks on codes in one feature (see
benchmarks/servers/faulty.py), the previous one is sound.
"""

import asyncio
import re
import threading
import time
import uuid
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import timedelta

import orjson
import pytest
from fastapi.testclient import TestClient
from pydantic import SecretStr

from benchmarks.servers import faulty
from tests import served
from tests.servers import RedisServer
from tiltyard import rails as rails_module
from tiltyard.online.connection import connect
from tiltyard.online.redis_store import RedisStore
from tiltyard.online.store import FeatureRow, TableNote, table_note
from tiltyard.serve import access, spool
from tiltyard.serve.contribution import Explained
from tiltyard.serve.lane import Job
from tiltyard.serve.web import App

NOW = served.FIRST + timedelta(days=20)
AT = NOW.timestamp()
CODES = [name for name in faulty.CODES if name != "late"]
HANG_MS = 1500
"""How long a hanging version works, by the speed this machine had when the version was built: many times the deadline
of `served.SOON`, since the machine may be several times as fast by the time the version hangs."""


@pytest.fixture(scope="module")
def base(tmp_path_factory, postgres_url):
    """Three models with a sound previous champion and a faulty champion; a fourth that never had one."""
    settings = served.home(
        tmp_path_factory.mktemp("serving"), postgres_url, f"serve{uuid.uuid4().hex[:8]}_", serve_refresh_s=0.1
    )
    with rails_module.opened(settings) as rails:
        sound, light = served.model(1), served.model(2)
        broken = faulty.faulty(sound, 0, hang_ms=HANG_MS)
        models = (("steady", {}), ("hanging", {"fallback": served.SOON}), ("split", {"traffic": {"challenger": 0.5}}))
        for name, changes in models:
            spec = served.written(settings.models, name, **changes)
            first = served.register(rails, spec, served.FIRST, sound, light)
            second = served.register(rails, spec, served.FIRST + served.DAY, broken, light)
            served.promote(rails, spec, first, served.FIRST + 2 * served.DAY)
            served.promote(rails, spec, second, served.FIRST + 3 * served.DAY, replaced=first)
            if name == "split":
                served.register(rails, spec, served.FIRST + 9 * served.DAY, served.model(3), light)
        served.written(settings.models, "young")
    served.cached(settings)
    store = connect(settings)
    put(store, "ftr_ticket__intake", "T1", {"weight": 0.3, "size": 4.0}, hours=3)
    put(store, "ftr_group__load", "G1", {"is_open": True, "priority": "high"}, hours=5)
    put(store, "spn_ticket", "T1", {"group_id": "G1"}, hours=3)
    put(store, "ftr_ticket__intake", "OLD", {"weight": 0.3, "size": 4.0}, hours=24 * 9)
    put(store, "spn_ticket", "OLD", {"group_id": "G1"}, hours=24 * 9)
    put(store, "ftr_ticket__intake", "AHEAD", {"weight": 0.3, "size": 4.0}, hours=-5)
    put(store, "ftr_ticket__intake", "NO_GROUP", {"weight": 0.3, "size": None}, hours=3)
    put(store, "ftr_ticket__intake", "LOST_GROUP", {"weight": 0.3, "size": 4.0}, hours=3)
    put(store, "spn_ticket", "LOST_GROUP", {"group_id": "G9"}, hours=3)
    put(store, "ftr_ticket__intake", "ALONE", {"weight": 0.3, "size": 4.0}, hours=3)
    put(store, "spn_ticket", "ALONE", {"group_id": None}, hours=3)
    put(store, "ftr_ticket__extra", "T1", {"extra": 0.5}, hours=24 * 9)
    store.close()
    return settings


LIGHT = ("light", "champion_features_missing")


def put(store, table, key, values, hours):
    known = AT - 3600 * hours
    store.put(table, [(key, FeatureRow(values, known, known))])


@contextmanager
def client(settings, **changes):
    """A service of its own in this process, its clock at NOW."""
    settings = settings.model_copy(update={"home": settings.home, **changes})
    app = App(settings, now=lambda: AT)
    with TestClient(app) as opened:
        yield opened


def predict(opened, model="steady", *rows, **more):
    body = {"rows": [{"features": {**served.ROW, **row}} for row in rows] or [{"features": served.ROW}], **more}
    answer = opened.post(f"/v1/models/{model}/predict", json=body)
    assert answer.status_code == 200, answer.text
    return answer.json()["predictions"]


def ask(opened, row, model="steady"):
    answer = opened.post(f"/v1/models/{model}/predict", json={"rows": [row]})
    assert answer.status_code == 200, answer.text
    return answer.json()["predictions"][0]


def told(prediction):
    return prediction["served_by"], prediction["reason"]


def metric(opened, name, **labels):
    """The sum over the samples that have these labels."""
    found = 0.0
    for line in opened.get("/metrics").text.splitlines():
        if line.startswith(f"{name}{{") and all(f'{key}="{value}"' in line for key, value in labels.items()):
            found += float(line.rsplit(" ", 1)[1])
    return found


def until(holds):
    """Wait for something that happens in the background; ten seconds are more than it takes."""
    for _ in range(200):
        if holds():
            return
        time.sleep(0.05)
    raise AssertionError("it did not happen within ten seconds")


def is_whole(opened, model):
    """Is the model in service with all of its versions?"""
    return any(one["model"] == model and not one["refused"] for one in opened.get("/v1/models").json())


def logged(settings):
    """Every record in the spool, oldest first."""
    records = []
    for path in sorted(settings.spool.glob("*-*.*")):
        records += [orjson.loads(record) for record in spool.read(path).records]
    return records


def test_the_champion_answers_and_the_log_says_all_of_it(base):
    with client(base) as opened:
        body = {"rows": [{"features": served.ROW}], "request_id": "the-first"}
        answer = opened.post("/v1/models/steady/predict", json=body).json()
    assert answer["request_id"] == "the-first"
    (one,) = answer["predictions"]
    assert told(one) == ("champion", "in_service")
    assert (one["version"], one["arm"], one["degraded"]) == (2, "champion", False)
    assert 0 < one["score"] < 1
    (record,) = [entry for entry in logged(base) if entry["request_id"] == "the-first" and entry["kind"] == "request"]
    assert record["features"] == served.ROW
    assert (record["version"], record["tier"], record["score"]) == (2, "champion", one["score"])


@pytest.mark.parametrize("fault", CODES)
def test_every_fault_falls_one_tier_under_its_own_reason(base, fault):
    with client(base) as opened:
        before = metric(opened, "tiltyard_answers_total", reason=f"champion_{fault}")
        (one,) = predict(opened, "steady", {"weight": faulty.CODES[fault]})
        after = metric(opened, "tiltyard_answers_total", reason=f"champion_{fault}")
    assert told(one) == ("previous", f"champion_{fault}")
    assert (one["version"], one["degraded"]) == (1, True)
    assert (before, after) == (0, 1)


def test_a_champion_that_hangs_is_late_at_its_deadline_and_then_not_asked(base):
    with client(base) as opened:
        found = []
        while len(found) < 30 and ("previous", "champion_breaker_open") not in found:
            found.append(told(predict(opened, "hanging", {"weight": faulty.HANGS})[0]))
        assert (
            len(found) > 5
        )  # more than 5 where this process stood still at a deadline: that is not the champion's fault
        assert [reason for _, reason in found[:5]] == ["champion_late"] * 5
        assert {reason for _, reason in found[5:-1]} <= {"champion_late", "champion_breaker_open"}
        assert found[-1] == ("previous", "champion_breaker_open")
        assert metric(opened, "tiltyard_breaker_open", model="hanging", version="2") == 1
        until(lambda: told(predict(opened, "hanging")[0]) == ("champion", "in_service"))  # a probe finds it well again


def test_rows_fall_one_by_one(base):
    with client(base) as opened:
        found = predict(opened, "steady", {}, {"weight": faulty.NAN}, {}, {"weight": faulty.OUT_OF_RANGE})
    reasons = [told(one)[1] for one in found]
    assert reasons == ["in_service", "champion_not_finite", "in_service", "champion_out_of_range"]
    assert [told(one)[0] for one in found] == ["champion", "previous", "champion", "previous"]


def test_features_are_looked_up_by_entity_and_are_the_same_as_given(base):
    with client(base) as opened:
        looked = ask(opened, {"entity_id": "T1"})
        (given,) = predict(opened)
        assert looked["score"] == given["score"]
        assert told(looked) == ("champion", "in_service")
        other = ask(opened, {"entity_id": "T1", "features": {"weight": 0.9}})
        (same,) = predict(opened, "steady", {"weight": 0.9})
        assert other["score"] == same["score"] != looked["score"]


@pytest.mark.parametrize(
    ("row", "tier", "reason"),
    [
        ({"entity_id": "OLD"}, "light", "champion_features_stale"),
        ({"entity_id": "NOBODY"}, "safe_default", "champion_features_missing"),
        ({"entity_id": "日本語 🜁"}, "safe_default", "champion_features_missing"),
        ({"features": {"weight": 0.1}}, "light", "champion_features_missing"),
        ({}, "safe_default", "champion_features_missing"),
        ({"entity_id": "AHEAD"}, "safe_default", "champion_features_missing"),
        ({"entity_id": "T1", "prediction_time": "2016-03-20T00:00:00Z"}, "safe_default", "champion_features_missing"),
        ({"entity_id": "NO_GROUP"}, "light", "champion_features_missing"),
        ({"entity_id": "LOST_GROUP"}, "light", "champion_features_missing"),
        ({"entity_id": "OLD", "keys": {"group_id": "G9"}}, "safe_default", "champion_features_stale"),
        (
            {"entity_id": "OLD", "keys": {"group_id": "G9"}, "features": {"weight": 0.3, "size": 4}},
            "light",
            "champion_features_missing",
        ),
        (
            {"entity_id": "T1", "keys": {"group_id": "G1"}, "prediction_time": "2016-03-21T20:00:00Z"},
            "light",
            "champion_features_missing",
        ),
        # a null that is held or given is known: as in training
        ({"entity_id": "NO_GROUP", "features": {"is_open": None, "priority": None}}, "champion", "in_service"),
        ({"entity_id": "OLD", "features": {"weight": 0.3, "size": None}}, "champion", "in_service"),
    ],
)
def test_what_is_not_known_is_not_made_up(base, row, tier, reason):
    with client(base) as opened:
        assert told(ask(opened, row)) == (tier, reason)


@pytest.mark.parametrize(("days", "answers"), [(1, ("champion", "in_service")), (3, LIGHT)])
def test_of_a_view_that_is_up_to_date_what_is_not_held_is_known_to_be_null(base, days, answers):
    """A ticket without a group, and one of a group that has no load yet: the lake's join gives nulls for both. When the
    view was brought up to date longer ago than max_feature_age, it is not known."""
    kinds = {"is_open": "boolean", "priority": "categorical"}
    with client(base) as opened:
        note = TableNote(as_of=AT - 24 * 3600 * days, columns=kinds)
        opened.app.service.store.write_note(table_note("ftr_group__load"), note)
        until(lambda: ("ftr_group__load" in opened.app.service._nulls) == (answers != LIGHT))
        (given,) = predict(opened, "steady", {"is_open": None, "priority": None})
        for entity in ("ALONE", "LOST_GROUP"):
            one = ask(opened, {"entity_id": entity})
            assert told(one) == answers
            assert (one["score"] == given["score"]) == (answers != LIGHT)
        assert told(ask(opened, {"entity_id": "NOBODY"})) == ("safe_default", "champion_features_missing")
        opened.app.service.store.write_note(table_note("ftr_group__load"), TableNote(as_of=0.0, columns=kinds))


def test_a_model_without_a_champion_answers_with_its_safe_default(base):
    with client(base) as opened:
        one = ask(opened, {"features": {"anything": 1}}, "young")
    assert (one["score"], one["version"]) == (0.25, None)
    assert told(one) == ("safe_default", "no_champion")


def test_it_starts_and_serves_without_ledger_and_lake(base, tmp_path):
    with client(base) as opened:
        (before,) = predict(opened)
    nowhere = "postgresql://nobody@127.0.0.1:1/nothing"
    with client(base, database_url=nowhere) as opened:
        (one,) = predict(opened)
        until(lambda: "PostgreSQL" in (opened.get("/readyz").json()["trouble"] or ""))
        assert opened.get("/readyz").status_code == 200
    assert one == before


def test_a_flipped_bit_in_the_cache_is_not_served(base):
    path = base.home / "cache" / "steady" / "2" / "model.onnx"
    content = path.read_bytes()
    path.write_bytes(content[:900] + bytes([content[900] ^ 4]) + content[901:])
    try:
        with client(base) as opened:  # MLflow's store has the sound one: it is fetched again
            until(lambda: told(predict(opened)[0]) == ("champion", "in_service"))
        assert path.read_bytes() == content
    finally:
        path.write_bytes(content)


def test_a_promotion_reaches_the_service_within_its_refresh(base):
    with rails_module.opened(base) as rails:
        spec = served.written(base.models, "moving")
        light = served.model(2)
        numbers = [
            served.register(rails, spec, served.FIRST + day * served.DAY, served.model(10 + day), light)
            for day in range(3)
        ]
        with client(base) as opened:
            until(lambda: any(one["model"] == "moving" for one in opened.get("/v1/models").json()))
            seen = []
            for day, number in enumerate(numbers):
                night = served.FIRST + (10 + day) * served.DAY
                served.promote(rails, spec, number, night, numbers[day - 1] if day else None)
                until(lambda number=number: ask(opened, {"features": served.ROW}, "moving")["version"] == number)
                seen.append(told(ask(opened, {"features": served.ROW}, "moving"))[1])
    assert seen == ["in_service"] * 3


def test_a_challenger_has_its_share_and_scores_the_others_unseen(base):
    with client(base) as opened:
        arms = Counter()
        for number in range(200):
            one = ask(opened, {"entity_id": f"E{number}", "features": served.ROW}, "split")
            again = ask(opened, {"entity_id": f"E{number}", "features": served.ROW}, "split")
            assert one["arm"] == again["arm"] == one["served_by"]
            arms[one["arm"]] += 1
        until(lambda: metric(opened, "tiltyard_shadow_total", model="split", outcome="scored") >= 400)
    assert 70 < arms["challenger"] < 130
    records = [entry for entry in logged(base) if entry["model"] == "split"]
    asked = {(entry["request_id"], entry["row"]) for entry in records if entry["kind"] == "request"}
    shadowed = {(entry["request_id"], entry["row"]) for entry in records if entry["kind"] == "shadow"}
    assert len(asked) == 400
    assert shadowed == asked
    scores = {entry["request_id"]: entry["score"] for entry in records if entry["kind"] == "shadow"}
    for entry in records:
        if entry["kind"] == "request" and entry["arm"] == "challenger":
            assert scores[entry["request_id"]] == pytest.approx(entry["score"], abs=1e-6)


def test_a_challenger_that_fails_leaves_its_share_to_the_champion(base):
    with rails_module.opened(base) as rails:
        spec = served.written(base.models, "dared", traffic={"challenger": 0.5}, fallback=served.SOON)
        sound, light = served.model(1), served.model(2)
        first = served.register(rails, spec, served.FIRST, sound, light)
        served.promote(rails, spec, first, served.FIRST + 2 * served.DAY)
        served.register(rails, spec, served.FIRST + 9 * served.DAY, faulty.faulty(sound, 0, hang_ms=HANG_MS), light)
    for fault in ("raised", "late"):
        with client(base) as opened:
            until(lambda opened=opened: is_whole(opened, "dared"))
            row = {"features": {**served.ROW, "weight": faulty.CODES[fault]}}
            found = [ask(opened, {**row, "entity_id": f"E{number}"}, "dared") for number in range(12)]
        of_challenger = [one for one in found if one["arm"] == "challenger"]
        assert 0 < len(of_challenger) < 12
        assert {one["served_by"] for one in found} == {"champion"}
        assert {one["degraded"] for one in of_challenger} == {True}
        assert told(of_challenger[0])[1] == f"challenger_{fault}"


def deployed(settings, name, *versions, challengers=0, **changes):
    """A model with these versions, (heavy, encoding) each: one champion after the other, then so many challengers."""
    with rails_module.opened(settings) as rails:
        spec = served.written(settings.models, name, **changes)
        champion = None
        for day, (heavy, encoding) in enumerate(versions):
            night, light = served.FIRST + day * served.DAY, served.model(2, encoding)
            number = served.register(rails, spec, night, heavy, light, encoding)
            if day < len(versions) - challengers:
                served.promote(rails, spec, number, night + served.DAY, champion)
                champion = number
    served.cached(settings)


def served_too(opened, name):
    until(lambda: any(one["model"] == name for one in opened.get("/v1/models").json()))


SOUND = (served.model(1), served.ENCODING)
WIDER = (served.model(1, served.WIDER), served.WIDER)
TURNED = (served.model(1, served.TURNED), served.TURNED)


def test_what_only_a_challenger_needs_is_not_asked_of_the_champions_callers(base):
    views = [*served.SPEC["prediction"]["features"], "ftr_ticket__extra"]
    deployed(base, "narrow", SOUND, WIDER, challengers=1, prediction={"features": views})
    with client(base) as opened:
        served_too(opened, "narrow")
        rows = (
            {"features": served.ROW},
            {"entity_id": "T1"},  # its `extra` is stale
            {"entity_id": "NOBODY", "features": served.ROW},
            {"features": {**served.ROW, "extra": 0.5}},
        )
        assert [told(ask(opened, row, "narrow")) for row in rows] == [("champion", "in_service")] * 4
        assert told(ask(opened, {"features": {"extra": 0.5}}, "narrow")) == (
            "safe_default",
            "champion_features_missing",
        )
        until(lambda: metric(opened, "tiltyard_shadow_total", model="narrow") > 0)
        assert metric(opened, "tiltyard_shadow_total", model="narrow", outcome="scored") == 1  # it knew one whole row


def test_a_previous_champion_that_needs_less_answers_where_the_champion_may_not(base):
    deployed(base, "grown", SOUND, WIDER)
    with client(base) as opened:
        served_too(opened, "grown")
        rows = [{"features": served.ROW}, {"features": {**served.ROW, "extra": 0.5}}]
        found = opened.post("/v1/models/grown/predict", json={"rows": rows}).json()["predictions"]
    assert [told(one) for one in found] == [("previous", "champion_features_missing"), ("champion", "in_service")]


def test_the_kind_of_a_feature_is_that_of_the_version_that_answers_first(base):
    deployed(base, "shaded", SOUND, TURNED, challengers=1, traffic={"challenger": 0.5})
    with client(base) as opened:
        served_too(opened, "shaded")
        found = [ask(opened, {"entity_id": f"E{n}", "features": served.ROW}, "shaded") for n in range(12)]
        body = {"rows": [{"features": {**served.ROW, "priority": 1.5}}]}
        refused = opened.post("/v1/models/shaded/predict", json=body)
        until(lambda: metric(opened, "tiltyard_shadow_total", model="shaded", outcome="failed") == 12)
    assert {(one["arm"], *told(one)) for one in found} == {
        ("champion", "champion", "in_service"),
        ("challenger", "champion", "challenger_raised"),
    }
    assert refused.status_code == 422


def test_a_value_that_is_held_as_another_kind_is_a_failure_of_the_version_that_cannot_read_it(base):
    deployed(base, "turned", SOUND, TURNED)
    deployed(base, "alone", TURNED)
    with client(base) as opened:
        served_too(opened, "alone")
        assert told(ask(opened, {"entity_id": "T1"}, "turned")) == ("previous", "champion_raised")
        assert told(ask(opened, {"entity_id": "T1"}, "alone")) == ("safe_default", "champion_raised")
        answer = opened.post("/v1/models/turned/explain", json={"rows": [{"entity_id": "T1"}]})
    assert answer.status_code == 422
    assert "another kind" in answer.json()["error"]


def test_a_champion_that_raises_is_not_late_because_the_previous_one_is(base):
    sound = served.model(1)
    broken = [(faulty.faulty(sound, column, hang_ms=HANG_MS), served.ENCODING) for column in (1, 0)]
    deployed(base, "both", *broken, fallback=served.SOON)
    with client(base) as opened:
        served_too(opened, "both")
        (one,) = predict(opened, "both", {"weight": faulty.RAISES, "size": faulty.HANGS})
        assert told(one) == ("light", "champion_raised")
        assert metric(opened, "tiltyard_tier_failures_total", model="both", tier="previous", outcome="late") == 1


def test_a_challenger_that_fails_in_shadow_fails_alone(base):
    deployed(base, "dim", SOUND, (faulty.faulty(served.model(1), 0), served.ENCODING), challengers=1)
    with client(base) as opened:
        served_too(opened, "dim")
        predict(opened, "dim", *({"weight": code} for code in (faulty.WRONG_SHAPE, 0.3, faulty.RAISES, faulty.NAN)))
        until(lambda: metric(opened, "tiltyard_shadow_total", model="dim") == 4)
        assert metric(opened, "tiltyard_shadow_total", model="dim", outcome="scored") == 1
        assert metric(opened, "tiltyard_shadow_total", model="dim", outcome="failed") == 3
        predict(opened, "dim")
        until(lambda: metric(opened, "tiltyard_shadow_total", model="dim", outcome="scored") == 2)
    scores = {
        entry["row"]: entry["score"] for entry in logged(base) if entry["kind"] == "shadow" and entry["model"] == "dim"
    }
    assert scores[1] is not None
    assert scores[2] is None


def test_a_version_that_is_not_in_service_any_more_leaves_no_thread(base):
    deployed(base, "passing", SOUND)
    with client(base) as opened:
        served_too(opened, "passing")
        service = opened.app.service
        gone = service.servables.current["passing"].champion
        service.servables._serve([])
        rows = gone.matrix([served.ROW])
        scored = []

        async def late():  # a request that was under way
            done = lambda values, error: scored.append(values)  # noqa: E731
            service.lane("passing", gone).put(Job(rows, time.monotonic() + 5, done))

        opened.portal.call(late)
        until(lambda: scored)
        until(lambda: not any(thread.name == "passing/1" for thread in threading.enumerate()))


def test_a_request_that_comes_again_has_the_same_answer_and_one_record(base):
    with client(base) as opened:
        body = {"rows": [{"features": served.ROW}], "request_id": "again"}
        first = opened.post("/v1/models/steady/predict", json=body)
        second = opened.post("/v1/models/steady/predict", json=body)
        body["rows"][0]["features"] = {**served.ROW, "size": 9}
        other = opened.post("/v1/models/steady/predict", json=body)
    assert first.json() == second.json()
    assert other.status_code == 409
    assert len([entry for entry in logged(base) if entry["request_id"] == "again"]) == 1


def test_a_request_that_comes_again_while_it_is_under_way_is_answered_with_it(base):
    """The champion hangs for longer than its deadline, so that the first is under way when the others come."""
    slow = {"rows": [{"features": {**served.ROW, "weight": faulty.HANGS}}], "request_id": "at-once"}
    other = {"rows": [{"features": served.ROW}], "request_id": "at-once"}
    with client(base) as opened, ThreadPoolExecutor() as pool:
        url = "/v1/models/hanging/predict"
        asked = [pool.submit(opened.post, url, json=slow)]
        until(lambda: opened.app.service._repeated._under_way)
        asked += [pool.submit(opened.post, url, json=slow) for _ in range(2)]
        assert opened.post(url, json=other).status_code == 409
        answers = [one.result().json() for one in asked]
    assert answers[0] == answers[1] == answers[2]
    assert told(answers[0]["predictions"][0]) == ("previous", "champion_late")
    assert len([entry for entry in logged(base) if entry["request_id"] == "at-once"]) == 1


def test_a_repetition_costs_nothing_and_ids_are_each_callers_own(base):
    ann, bob = access.new("ann"), access.new("bob")
    keys = SecretStr(f"{ann.entry},{bob.entry}")
    body = {"rows": [{"features": served.ROW}] * 2, "request_id": "mine"}
    with client(base, serve_keys=keys, serve_budget=2) as opened:

        def post(key, content):
            return opened.post("/v1/models/steady/predict", json=content, headers={"x-api-key": key})

        assert [post(ann.key, body).status_code for _ in range(3)] == [200] * 3
        assert post(ann.key, {**body, "request_id": "another"}).status_code == 429
        assert post("no key of ours", body).status_code == 401
        assert post(bob.key, {**body, "rows": [{"features": {**served.ROW, "size": 9}}]}).status_code == 200
    assert len([entry for entry in logged(base) if entry["request_id"] == "mine"]) == 3


def test_no_answer_goes_out_that_the_log_does_not_take_unless_set_so(base, tmp_path):
    (tmp_path / "file").write_text("where a folder should be")
    body, url = {"rows": [{"features": served.ROW}]}, "/v1/models/steady/predict"
    made = access.new("desk")
    more = {"serve_keys": SecretStr(made.entry), "serve_budget": 1, "serve_operators": ("desk",)}
    for is_unlogged, status in ((False, 503), (True, 200)):
        with client(base, serve_unlogged=is_unlogged, **more) as opened:
            log, counts = opened.app.service.spool, opened.app.service.access._of_host
            with counts:
                counts.write("desk", (0, 0))
            log.folder = tmp_path / "file"
            answer = opened.post(url, json=body, headers={"x-api-key": made.key})
            assert answer.status_code == status
            assert log.dropped == 1
            if not is_unlogged:
                assert "request log" in answer.json()["error"]
                log.folder = base.spool
                again = opened.post(url, json=body, headers={"x-api-key": made.key})
                assert again.status_code == 200  # what was not answered cost nothing


def test_hosts_that_share_a_redis_share_the_budget_and_count_alone_while_it_is_away(base, tmp_path):
    server, made = RedisServer(tmp_path), access.new("desk")
    server.start()
    stores = [RedisStore(server.url), RedisStore(server.url)]

    async def spend():
        async def one(store):
            return await store.spend("desk", int(time.time() // access.DAY), 1, 70)

        said = await asyncio.gather(*(one(stores[number % 2]) for number in range(100)))
        for store in stores:
            await store.aclose()
        return said

    for store in stores:
        store.read_s = 10.0  # whatever else the machine does
    try:
        assert Counter(asyncio.run(spend())) == {None: 70, 70: 30}
        values = {"serve_keys": SecretStr(made.entry), "serve_budget": 72, "serve_operators": ("desk",)}
        with client(base, online_url=SecretStr(server.url), **values) as opened:
            opened.app.service.store.read_s = 10.0
            key = {"x-api-key": made.key}
            with opened.app.service.access._of_host as _:
                opened.app.service.access._of_host.write("desk", (0, 0))

            def post(rows):
                body = {"rows": [{"features": served.ROW}] * rows}
                return opened.post("/v1/models/steady/predict", json=body, headers=key)

            assert "leaves 2" in post(3).json()["error"]
            assert post(1).status_code == 200
            server.kill()
            assert post(70).status_code == 200  # the host has counted 1, and Redis 71
            assert "budget: Redis" in opened.get("/readyz", headers=key).json()["trouble"]
            assert "leaves 1" in post(2).json()["error"]
    finally:
        server.kill()


def test_beyond_loopback_there_are_no_explanations_and_no_description_unless_set_so(base):
    body = {"rows": [{"features": served.ROW}]}
    key = {"x-api-key": (made := access.new("desk")).key}
    for values, status in (({}, 404), ({"serve_explain": True}, 200)):
        more = {"serve_host": "0.0.0.0", "serve_keys": SecretStr(made.entry), **values}
        with client(base, **more) as opened:
            assert opened.get("/docs").status_code == status
            assert opened.get("/openapi.json").status_code == status
            said = opened.post("/v1/models/nobody/explain", json=body, headers=key)
            assert said.status_code == (404 if values else 403)
            assert ("TILTYARD_SERVE_EXPLAIN" in said.json()["error"]) is not bool(values)


def test_an_explanation_is_counted_and_not_logged(base):
    async def ask_child(row, values):
        return Explained(score=0.5, base=0.5, contributions={}, method="none", background=1)

    with client(base) as opened:
        opened.app.service.explainer.ask = ask_child
        body = {"rows": [{"features": served.ROW}], "request_id": "why"}
        assert opened.post("/v1/models/steady/explain", json=body).status_code == 200
        assert opened.post("/v1/models/young/explain", json={"rows": [{"features": {"any": 1}}]}).status_code == 503
        assert opened.post("/v1/models/nobody/explain", json=body).status_code == 404
        counted = [("steady", "200"), ("young", "503"), ("-", "404")]
        for model, status in counted:
            assert metric(opened, "tiltyard_requests_total", model=model, status=status) == 1
    assert not [entry for entry in logged(base) if entry["request_id"] == "why"]


@pytest.mark.parametrize(
    ("content", "status", "said"),
    [
        (b"", 400, "not JSON"),
        (b"[1, 2]", 422, "object"),
        (b'{"rows": []}', 422, "at least one row"),
        (b'{"rows": [{"features": {"weight": NaN}}]}', 400, "not JSON"),
        (b'{"rows": [{"features": {"weight": "heavy"}}]}', 422, "a finite number"),
        (b'{"rows": [{"features": {"weight": true}}]}', 422, "a finite number"),
        (b'{"rows": [{"features": {"unheard": 1}}]}', 422, "does not know"),
        (b'{"rows": [{"feature": {"weight": 1}}]}', 422, "unknown field"),
        (b'{"rows": [{"keys": {"planet": "x"}}]}', 422, "the keys are"),
        (b'{"rows": [{"prediction_time": "2016-03-22T01:00:00Z"}]}', 422, "in the future"),
        (b'{"rows": [{"prediction_time": "2016-03-22T00:00:00"}]}', 422, "zone"),
        (b'{"rows": [{}], "request_id": "a b"}', 422, "request_id"),
        (b'{"rows": [' + b",".join([b"{}"] * 1001) + b"]}", 413, "1000"),
        (b" " * 1_000_001, 413, "bytes"),
    ],
)
def test_bad_input_is_told_in_a_sentence(base, content, status, said):
    with client(base) as opened:
        answer = opened.post("/v1/models/steady/predict", content=content, headers={"content-type": "application/json"})
    assert answer.status_code == status
    assert said in answer.json()["error"]


@pytest.mark.parametrize(
    ("kind", "status", "said"),
    [
        ("application/json", 200, ""),
        ("Application/JSON", 200, ""),
        ("application/json; charset=utf-8", 200, ""),
        ('application/json ;Charset="UTF-8"', 200, ""),
        (None, 200, ""),
        ("application/jsonx", 415, "not as application/jsonx"),
        ("application/json, text/plain", 415, "not as application/json, text/plain"),
        ("application/json; charset=latin-1", 415, "not in latin-1"),
        ("text/plain", 415, "not as text/plain"),
    ],
)
def test_a_body_is_json_whatever_the_case_of_its_type(base, kind, status, said):
    with client(base) as opened:
        content = orjson.dumps({"rows": [{"features": served.ROW}]})
        for verb in ("predict", "explain") if status == 415 else ("predict",):
            headers = {} if kind is None else {"content-type": kind}
            answer = opened.post(f"/v1/models/steady/{verb}", content=content, headers=headers)
            assert answer.status_code == status, answer.text
            assert said in answer.json().get("error", "")


def test_a_length_of_thousands_of_digits_is_too_large_and_no_fault(base):
    with client(base) as opened:
        answer = opened.post("/v1/models/steady/predict", content=b"{}", headers={"content-length": "9" * 5000})
    assert answer.status_code == 413
    assert "larger than" in answer.json()["error"]


def test_an_unknown_model_is_told_which_there_are(base):
    with client(base) as opened:
        answer = opened.post("/v1/models/nobody/predict", json={"rows": [{}]})
    assert answer.status_code == 404
    assert "steady" in answer.json()["error"]


@pytest.mark.parametrize(("method", "path", "status"), [("GET", "/nothing", 404), ("DELETE", "/v1/models", 405)])
def test_what_there_is_not_is_told_in_a_sentence(base, method, path, status):
    with client(base) as opened:
        answer = opened.request(method, path)
    assert answer.status_code == status
    assert f"There is no {method} {path} here" in answer.json()["error"]


def test_its_description_needs_nothing_from_the_network(base):
    with client(base) as opened:
        page = opened.get("/docs").text
        fetched = re.findall(r'(?:src|href)="([^"]+)"|url: \'([^\']+)\'', page)
        assert len(fetched) >= 3
        for source in (one or other for one, other in fetched):
            assert source.startswith("/")
            assert opened.get(source).status_code == 200
