"""Bad input over real HTTP: whatever is sent, the answer is a 4xx with a sentence, or a prediction by a declared tier.

First what people and their programs do send wrong, one by one; then what Schemathesis makes of the service's own
OpenAPI description: requests that fit it and requests that do not.
"""

import json
import random
import re
import threading
import uuid
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import httpx
import pytest
import schemathesis
import uvicorn
from hypothesis import HealthCheck, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from tests import served
from tests.mangled import VALUES, json_value, mangled, seeds
from tiltyard import rails as rails_module
from tiltyard.online.connection import connect
from tiltyard.online.store import FeatureRow
from tiltyard.serve import access
from tiltyard.serve.fallback import REASONS
from tiltyard.serve.web import App
from tiltyard.settings import Settings

NOW = served.FIRST + timedelta(days=20)
ROW = served.ROW
PREDICT = "/v1/models/steady/predict"
TIERS = {"champion", "previous", "light", "safe_default"}

pytestmark = pytest.mark.usefixtures("cases_in_report")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory, postgres_url: str) -> Settings:
    """A model with a champion and a previous one, and one that has neither; one entity is known."""
    made = served.home(tmp_path_factory.mktemp("fuzz"), postgres_url, f"fuzz{uuid.uuid4().hex[:8]}_")
    with rails_module.opened(made) as rails:
        spec = served.written(made.models, "steady")
        first = served.register(rails, spec, served.FIRST, served.model(1), served.model(2))
        second = served.register(rails, spec, served.FIRST + served.DAY, served.model(3), served.model(2))
        served.promote(rails, spec, first, served.FIRST + 2 * served.DAY)
        served.promote(rails, spec, second, served.FIRST + 3 * served.DAY, replaced=first)
        served.written(made.models, "young")
    served.cached(made)
    store, at = connect(made), NOW.timestamp() - 3600
    store.put("ftr_ticket__intake", [("T1", FeatureRow({"weight": 0.3, "size": 4.0}, at, at))])
    store.put("ftr_group__load", [("G1", FeatureRow({"is_open": True, "priority": "high"}, at, at))])
    store.put("spn_ticket", [("T1", FeatureRow({"group_id": "G1"}, at, at))])
    store.close()
    return made


def serve(made: Settings) -> Iterator[str]:
    """The service on a free port of this machine, with the event loop and the parser of `tiltyard serve`."""
    app = App(made, now=NOW.timestamp)
    config = uvicorn.Config(
        app, port=0, loop="uvloop", http="tiltyard.serve.door:Connection", ws="none", log_level="error",
        timeout_graceful_shutdown=5,
    )  # fmt: skip
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    try:
        while not server.started:
            thread.join(0.02)
            assert thread.is_alive(), "the service did not start"
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(30)


@pytest.fixture(scope="module")
def url(home: Settings) -> Iterator[str]:
    yield from serve(home)


@pytest.fixture(scope="module")
def http(url: str) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=url, timeout=60) as client:
        yield client


def refused(answer: httpx.Response, *status: int) -> str:
    """The sentence of a refusal with one of these statuses."""
    assert answer.status_code in status, (answer.status_code, answer.text[:300])
    body = answer.json()
    assert list(body) == ["error"]
    sentence: str = body["error"]
    assert " " in sentence
    assert len(sentence) < 600
    assert "Traceback" not in sentence
    return sentence


def answered(answer: httpx.Response) -> list[dict[str, Any]]:
    """The predictions of an answer: a finite score each, by a declared tier, for a declared reason."""
    assert answer.status_code == 200, answer.text[:300]
    predictions: list[dict[str, Any]] = answer.json()["predictions"]
    for one in predictions:
        assert 0 <= one["score"] <= 1
        assert one["served_by"] in TIERS
        assert one["reason"] in REASONS
        assert one["degraded"] == (one["served_by"] != "champion")
    return predictions


def post(http: httpx.Client, content: bytes | str, path: str = PREDICT, **headers: str) -> httpx.Response:
    kind = {"content-type": "application/json"}
    return http.post(path, content=content, headers={**kind, **{k.replace("_", "-"): v for k, v in headers.items()}})


def rows(*given: Any, **more: Any) -> str:
    return json.dumps({"rows": list(given), **more})


# -- one by one -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "status", "says"),
    [
        # not JSON, or not an object with rows
        ("", 400, "not JSON"),
        ("{", 400, "not JSON"),
        (b"\xff\xfe\x00", 400, "not JSON"),
        ("null", 422, "is an object"),
        ("[]", 422, "is an object"),
        ('"rows"', 422, "is an object"),
        ("{}", 422, "rows is a list"),
        (rows(), 422, "rows is a list"),
        ('{"rows": {"0": {}}}', 422, "rows is a list"),
        (rows(None), 422, "rows[0] is an object"),
        (rows(ROW), 422, "features go under features"),
        (rows({"features": ROW}, row=1), 422, "Unknown field 'row'"),
        (rows({"features": ROW}, request_id=""), 422, "request_id is"),
        (rows({"features": ROW}, request_id=7), 422, "request_id is"),
        (rows({"features": ROW}, request_id="a b"), 422, "request_id is"),
        (rows({"features": ROW}, request_id="ü"), 422, "request_id is"),
        # wrong types
        (rows({"features": []}), 422, "maps features to values"),
        (rows({"features": "weight"}), 422, "maps features to values"),
        (rows({"features": {**ROW, "weight": "heavy"}}), 422, "weight is a finite number"),
        (rows({"features": {**ROW, "weight": True}}), 422, "weight is a finite number"),
        (rows({"features": {**ROW, "weight": [1.0]}}), 422, "weight is a finite number"),
        (rows({"features": {**ROW, "weight": {"value": 1.0}}}), 422, "weight is a finite number"),
        (rows({"features": {**ROW, "is_open": 1}}), 422, "is_open is true or false"),
        (rows({"features": {**ROW, "is_open": "true"}}), 422, "is_open is true or false"),
        (rows({"features": {**ROW, "priority": 1}}), 422, "priority is text"),
        (rows({"features": {**ROW, "priority": "x" * 100_000}}), 422, "priority is text"),
        (rows({"features": ROW}, {"features": {**ROW, "weight": ""}}), 422, "rows[1].features.weight"),
        # extra features
        (rows({"features": {**ROW, "colour": "red"}}), 422, "'colour', which steady does not know"),
        (rows({"features": {**ROW, "": 1}}), 422, "does not know"),
        (rows({"features": {**ROW, "__class__": 1}}), 422, "does not know"),
        # numbers that are none
        ('{"rows": [{"features": {"weight": NaN}}]}', 400, "not JSON"),
        ('{"rows": [{"features": {"weight": Infinity}}]}', 400, "not JSON"),
        ('{"rows": [{"features": {"weight": -Infinity}}]}', 400, "not JSON"),
        # entities and keys
        (rows({"entity_id": ""}), 422, "entity_id is text"),
        (rows({"entity_id": 17}), 422, "entity_id is text"),
        (rows({"entity_id": "x" * 1001}), 422, "entity_id is text"),
        (rows({"entity_id": ["T1"]}), 422, "entity_id is text"),
        (rows({"keys": ["T1"]}), 422, "keys maps"),
        (rows({"keys": {"group_id": 7}}), 422, "keys maps"),
        (rows({"keys": {"customer_id": "C1"}}), 422, "the keys are"),
        (rows({"entity_id": "T1", "keys": {"ticket_id": "T2"}}), 422, "names two entities"),
        # time
        (rows({"features": ROW, "prediction_time": "yesterday"}), 422, "an instant with a zone"),
        (rows({"features": ROW, "prediction_time": "2016-03-22T00:00:00"}), 422, "an instant with a zone"),
        (rows({"features": ROW, "prediction_time": "2016-03-22"}), 422, "an instant with a zone"),
        (rows({"features": ROW, "prediction_time": 1458604800}), 422, "an instant with a zone"),
        (rows({"features": ROW, "prediction_time": "0001-01-01T00:00:00+14:00"}), 422, "an instant with a zone"),
        (rows({"features": ROW, "prediction_time": "9999-12-31T23:59:59-14:00"}), 422, ""),
        (rows({"features": ROW, "prediction_time": (NOW + timedelta(hours=1)).isoformat()}), 422, "the caller's clock"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said(http: httpx.Client, body: bytes | str, status: int, says: str) -> None:
    assert says in refused(post(http, body), status)
    refused(post(http, body, "/v1/models/steady/explain"), status, 413)


@pytest.mark.parametrize(
    "row",
    [
        {"features": {}},
        {},
        {"features": {"weight": 1.0}},
        {"features": None, "keys": None, "entity_id": None, "prediction_time": None},
        {"features": dict.fromkeys(ROW)},
        {"features": {**ROW, "priority": "никогда не видели 🦄 \u202e\ud83d\ude00"}},
        {"features": {**ROW, "priority": ""}},
        {"features": {**ROW, "priority": "\x00'; drop table rows; --"}},
        {"features": {**ROW, "weight": 1.7e308}},
        {"features": {**ROW, "weight": -1e39}},
        {"features": {**ROW, "weight": 5e-324}},
        {"features": {**ROW, "weight": 2**63 - 1}},
        {"features": {**ROW, "weight": -(2**63)}},
        {"features": {**ROW, "weight": -0.0}},
        {"entity_id": "T1"},
        {"entity_id": "nobody"},
        {"entity_id": "INC/../../etc/passwd"},
        {"entity_id": "x" * 1000},
        {"entity_id": "ü" * 1000},
        {"entity_id": "🦄" * 1000},
        {"entity_id": "\x00"},
        {"entity_id": "T1", "keys": {"group_id": "nowhere"}},
        {"keys": {"group_id": "G1"}},
        {"entity_id": "T1", "prediction_time": (NOW - timedelta(hours=1)).isoformat()},
        {"entity_id": "T1", "prediction_time": (NOW + timedelta(seconds=59)).isoformat()},
        {"entity_id": "T1", "prediction_time": "1970-01-01T00:00:00Z"},
        {"entity_id": "T1", "prediction_time": "1700-01-01T00:00:00Z"},
        {"features": ROW, "prediction_time": "0001-01-02T00:00:00Z"},
    ],
    ids=lambda row: json.dumps(row)[:60],
)  # fmt: skip
def test_what_is_odd_but_may_be_is_answered_by_a_declared_tier(http: httpx.Client, row: dict[str, Any]) -> None:
    assert len(answered(post(http, rows(row)))) == 1


@pytest.mark.parametrize("number", ["1e999", "-1e999", str(10**30), "9" * 4000, "-" + "9" * 400, str(2**64)])
def test_numbers_beyond_every_type_are_refused_or_answered(http: httpx.Client, number: str) -> None:
    answer = post(http, rows({"features": {**ROW, "weight": 0.125}}).replace("0.125", number))
    if answer.status_code == 200:
        answered(answer)
    else:
        refused(answer, 400, 422)


def test_a_lone_half_of_a_character_is_no_text(http: httpx.Client) -> None:
    refused(post(http, '{"rows": [{"entity_id": "\\ud800"}]}'), 400, 422)


def test_the_last_of_two_values_under_one_name_counts(http: httpx.Client) -> None:
    twice = '{"rows": [{"entity_id": "nobody"}], "rows": [{"features": {"weight": 0.1, "weight": 0.9, %s}}]}'
    rest = '"size": 4, "is_open": true, "priority": "high"'
    (one,) = answered(post(http, twice % rest))
    (same,) = answered(post(http, rows({"features": {**ROW, "weight": 0.9}})))
    assert one["score"] == same["score"]


@pytest.mark.parametrize("depth", [10, 500, 5_000, 100_000])
def test_deep_nesting_is_refused(http: httpx.Client, depth: int) -> None:
    for inside in ("[" * depth + "]" * depth, '{"a":' * depth + "1" + "}" * depth):
        refused(post(http, f'{{"rows": [{{"features": {{"weight": {inside}}}}}]}}'), 400, 422)
        refused(post(http, inside), 400, 422)


@pytest.mark.parametrize(
    "model", ["nothing", "Steady", "..%2f..%2fetc%2fpasswd", "%00", "%F0%9F%A6%84", "a" * 5000, "%"]
)
def test_a_model_that_is_not_there(http: httpx.Client, model: str) -> None:
    for verb in ("predict", "explain"):
        answer = post(http, rows({"features": ROW}), f"/v1/models/{model}/{verb}")
        assert answer.status_code == 404
        if "%2f" not in model:
            assert "There is no model" in refused(answer, 404)


def test_a_model_without_a_version_answers_with_its_safe_default(http: httpx.Client) -> None:
    (one,) = answered(post(http, rows({"entity_id": "T1"}), "/v1/models/young/predict"))
    assert (one["served_by"], one["reason"], one["score"]) == ("safe_default", "no_champion", 0.25)


def test_bodies_and_rows_beyond_the_limits(http: httpx.Client) -> None:
    assert "larger than" in refused(post(http, b" " * 10_000_000), 413)
    assert "larger than" in refused(post(http, '{"rows": [' + "{}," * 100_000 * 4 + "{}]}"), 413)
    assert "more than" in refused(post(http, '{"rows": [' + "{}," * 99_999 + "{}]}"), 413)
    chunks = http.post(
        PREDICT, content=(b" " * 65_536 for _ in range(160)), headers={"content-type": "application/json"}
    )
    assert "larger than" in refused(chunks, 413)
    assert len(answered(post(http, rows(*[{"features": ROW}] * 1_000)))) == 1_000


@pytest.mark.parametrize(
    "kind", ["text/plain", "application/x-www-form-urlencoded", "application/xml", "ü", "a" * 4000]
)
def test_another_content_type(http: httpx.Client, kind: str) -> None:
    answer = http.post(PREDICT, content=rows({"features": ROW}), headers={"content-type": kind.encode()})
    assert "application/json" in refused(answer, 415)


def test_a_body_that_says_json_in_another_alphabet(http: httpx.Client) -> None:
    refused(post(http, rows({"features": ROW}).encode("utf-16")), 400)
    compressed = post(http, b"\x1f\x8b\x08\x00", content_encoding="gzip")
    refused(compressed, 400, 415)


def test_a_request_that_is_replayed_has_its_answer_and_another_one_has_not(http: httpx.Client) -> None:
    body = rows({"features": ROW}, request_id="order-17")
    first, again = post(http, body), post(http, body)
    answered(first)
    assert first.content == again.content
    assert "was used for another request" in refused(post(http, rows({"entity_id": "T1"}, request_id="order-17")), 409)
    answered(post(http, body, "/v1/models/young/predict"))  # another model's ids are its own


def test_the_service_answers_as_before_after_all_of_it(http: httpx.Client) -> None:
    (one,) = answered(post(http, rows({"features": ROW})))
    assert (one["served_by"], one["reason"]) == ("champion", "in_service")


# -- keys and limits --------------------------------------------------------------------------


def test_without_its_key_or_beyond_its_budget_nobody_is_answered(home: Settings) -> None:
    made, other = access.new("desk"), access.new("billing")
    keyed = home.model_copy(
        update={"serve_keys": Settings(serve_keys=f"{made.entry},{other.entry}").serve_keys, "serve_budget": 10,
                "serve_decimals": 2, "serve_operators": ("desk",)}
    )  # fmt: skip
    for place in serve(keyed):
        with httpx.Client(base_url=place, timeout=60) as http:
            one = rows({"features": ROW})
            for path in (PREDICT, "/v1/models/steady/explain"):
                assert "X-API-Key" in refused(post(http, one, path), 401)
                strange = httpx.Headers({"content-type": "application/json", "x-api-key": "ключ"}, encoding="utf-8")
                assert "not known here" in refused(http.post(path, content=one, headers=strange), 401)
                for wrong in (made.key[:-1], made.entry, "a" * 5000):
                    assert "not known here" in refused(post(http, one, path, x_api_key=wrong), 401)
            for path in ("/v1/models", "/metrics"):
                refused(http.get(path), 401)
                assert http.get(path, headers={"x-api-key": made.key}).status_code == 200
            assert "TILTYARD_SERVE_OPERATORS" in refused(http.get("/metrics", headers={"x-api-key": other.key}), 403)
            for headers in ({}, {"x-api-key": other.key}):
                assert http.get("/readyz", headers=headers).json() == {"status": "ready"}
            assert "trouble" in http.get("/readyz", headers={"x-api-key": made.key}).json()
            assert http.get("/healthz").status_code == 200
            (said,) = answered(post(http, one, x_api_key=made.key))
            assert said["score"] == round(said["score"], 2)
            over = post(http, rows(*[{"features": ROW}] * 10), x_api_key=made.key)
            assert "leaves 9" in refused(over, 429)
            assert int(over.headers["retry-after"]) > 0
            answered(post(http, rows(*[{"features": ROW}] * 10), x_api_key=other.key))
            assert made.key not in http.get("/metrics", headers={"x-api-key": made.key}).text


# -- from whatever JSON may hold ----------------------------------------------------------------

PATHS = [
    PREDICT, "/v1/models/steady/explain", "/v1/models/young/predict", "/v1/models/%2e%2e%2fspec/predict",
    "/v1/models/X/predict",
    "/v1/models/", "/v1/models/steady", "/v1/models/steady/predict/", "/healthz/..", "/metrics", "/readyz",
    "/openapi.json", "//",
]  # fmt: skip
TOLD = re.compile(
    r"Traceback|File \"|site-packages|\.py\b|/home/|/tmp|/usr/|postgresql:|TILTYARD_|password", re.IGNORECASE
)
"""What nobody who asks over HTTP is told."""


def awkward(rng: random.Random) -> tuple[str, bytes, dict[str, str]]:
    """A path, a body and headers, of which some are as they ought to be."""
    row: dict[str, Any] = {"entity_id": "T1", "features": dict(ROW), "keys": {"group_id": "G1"}}
    body: Any = {"rows": [row], "request_id": rng.choice([None, uuid.uuid4().hex])}
    for _ in range(rng.randint(0, 3)):
        place: Any = rng.choice([body, row, row["features"], row["keys"]])
        if isinstance(place, dict):
            name = rng.choice([*place, *VALUES[:30], "prediction_time", "weight"])
            place[name] = json_value(rng)
            row["features"], row["keys"] = row.get("features", {}), row.get("keys", {})
    try:
        content = json.dumps(body if rng.random() < 0.9 else json_value(rng), ensure_ascii=rng.random() < 0.5)
        sent = content.encode("utf-8", "surrogatepass")
    except ValueError:
        sent = b"{"
    if rng.random() < 0.2:
        sent = mangled(rng, content)
    path = rng.choice([PREDICT] * 6 + PATHS)
    headers = {
        "content-type": rng.choice(["application/json"] * 9 + ["text/plain", "application/json; charset=utf-16", "x"])
    }
    if rng.random() < 0.2:
        headers[rng.choice(["x-api-key", "content-encoding", "traceparent", "accept", "host", "x"])] = rng.choice(
            [text for value in VALUES if (text := value.strip()).isascii() and text.isprintable() and len(text) < 3_000]
        )
    return path, sent, headers


def test_whatever_json_may_hold_is_answered_or_refused(http: httpx.Client, home: Settings) -> None:
    failures = []
    for seed in seeds(0.3):
        path, sent, headers = awkward(random.Random(seed))
        said = http.post(path, content=sent, headers=headers)
        text = said.text
        wrong = said.status_code >= 500 and not (said.status_code == 503 and path.endswith(("explain", "readyz")))
        if said.status_code >= 400 and path.endswith(("predict", "explain")) and "json" in said.headers["content-type"]:
            sentence = json.loads(text).get("error", "")
            wrong = wrong or not re.search(r"\w \w", sentence) or "\n" in sentence or len(sentence) > 1_000
        if said.status_code == 200 and path == PREDICT:
            answered(said)
        if wrong or (TOLD.search(text) and path != "/openapi.json") or str(home.home) in text:
            failures.append(f"FUZZ_SEED={seed} {path} {said.status_code} {text[:300]!r} to {sent[:300]!r}")
    assert not failures, f"{len(failures)} of {len(seeds(0.3))}:\n" + "\n".join(failures[:30])
    assert http.get("/healthz").status_code == 200


# -- from the service's own description ---------------------------------------------------------


schema = schemathesis.openapi.from_dict(App(Settings()).routes.openapi())
CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]
FUZZ = settings(
    max_examples=40,
    derandomize=True,
    suppress_health_check=list(HealthCheck),
)


def sent(case: Any, url: str) -> None:
    answer = case.call(base_url=url, timeout=90)  # the first explanation starts a process
    explains = case.path.endswith("/explain") and answer.status_code == 503
    case.validate_response(answer, checks=CHECKS[1:] if explains or case.path == "/readyz" else CHECKS)
    if explains:  # a busy machine; never what nobody had thought of
        assert "could not be explained" not in answer.json()["error"]
    if answer.status_code >= 400 and case.path.startswith("/v1/models/"):
        assert answer.status_code == 405 or " " in answer.json()["error"]


@schema.parametrize()
@FUZZ
def test_nothing_made_from_the_description_is_too_much(case: Any, url: str) -> None:
    sent(case, url)


@schema.include(path_regex="predict|explain").parametrize()
@FUZZ
def test_nothing_that_nearly_fits_a_model_is_too_much(case: Any, url: str) -> None:
    """The same, for a model that is there and under the names that it knows: past the first few checks."""
    case.path_parameters = {"model": "steady"}
    if isinstance(case.body, dict) and isinstance(case.body.get("rows"), list):
        for row in case.body["rows"]:
            for field, names in (("features", list(ROW)), ("keys", ["ticket_id", "group_id"])):
                if isinstance(row, dict) and isinstance(row.get(field), dict):
                    row[field] = dict(zip(names, row[field].values(), strict=False))
    sent(case, url)
