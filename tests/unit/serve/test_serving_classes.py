"""A label of several classes, answered online: the likeliest, the probability of each, and who gave them."""

import json
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import numpy as np
import orjson
import pandas as pd
import pytest
from fastapi.testclient import TestClient

from tests import served
from tests.unit.serve.test_serving import metric, until
from tiltyard import rails as rails_module
from tiltyard.answered import request_log
from tiltyard.lake import stored
from tiltyard.serve import contribution, spool
from tiltyard.serve.web import App
from tiltyard.settings import Settings
from tiltyard.tables import REQUEST, REQUEST_SHADOW
from tiltyard.target import Classes
from tiltyard.train import registry

NOW = served.FIRST + timedelta(days=20)
CLASSES = ("early", "on time", "late")
THREE = Classes(classes=CLASSES)
DEFAULT = {"early": 0.2, "on time": 0.5, "late": 0.3}
OF_CLASSES = {
    "label": {"classes": list(CLASSES)},
    "traffic": {"challenger": 0.5},
    "fallback": {"safe_default": DEFAULT},
}
ROWS = [{**served.ROW, "weight": weight} for weight in (0.05, 0.5, 0.95)]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory, postgres_url: str) -> Settings:
    """A model with a champion and a challenger; one whose champion knows other classes; one whose champion is of a yes
    or no; one that never had one."""
    folder, prefix = tmp_path_factory.mktemp("classes"), f"classes{uuid.uuid4().hex[:8]}_"
    settings = served.home(folder, postgres_url, prefix, serve_refresh_s=0.1)
    heavy, light = served.model(1, classes=3), served.model(2, classes=3)
    with rails_module.opened(settings) as rails:
        for name, kind in (("delays", THREE), ("turned", Classes(classes=CLASSES[::-1])), ("young", None)):
            spec = served.written(settings.models, name, **OF_CLASSES)
            if kind is not None:
                first = served.register(rails, spec, served.FIRST, heavy, light, kind=kind)
                served.promote(rails, spec, first, served.FIRST + 2 * served.DAY)
            if name == "delays":
                as_of = served.FIRST + 9 * served.DAY
                served.register(rails, spec, as_of, served.model(3, classes=3), light, kind=kind)
        spec = served.written(settings.models, "narrow", **OF_CLASSES)
        first = served.register(rails, spec, served.FIRST, served.model(1), served.model(2), kind=THREE)
        served.promote(rails, spec, first, served.FIRST + 2 * served.DAY)
    served.cached(settings)
    return settings


@contextmanager
def client(settings: Settings) -> Iterator[TestClient]:
    with TestClient(App(settings, now=NOW.timestamp)) as opened:
        yield opened


def predict(opened: TestClient, model: str, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    body = {"rows": [{"features": row} for row in rows]}
    answer = opened.post(f"/v1/models/{model}/predict", json=body)
    assert answer.status_code == 200, answer.text
    found: list[dict[str, Any]] = answer.json()["predictions"]
    return found


def test_an_answer_names_the_likeliest_class_and_the_probability_of_each(base: Settings) -> None:
    with rails_module.opened(base) as rails:
        scorer = registry.load(rails, "delays", 1)
    expected = scorer.score(pd.DataFrame(ROWS))
    with client(base) as opened:
        for rows, wanted in ((ROWS, expected), (ROWS[:1], expected[:1])):  # several rows, and the short way of one
            for answer, row in zip(predict(opened, "delays", rows), wanted, strict=True):
                assert (answer["served_by"], answer["reason"], answer["version"]) == ("champion", "in_service", 1)
                assert list(answer["scores"]) == list(CLASSES)
                assert list(answer["scores"].values()) == pytest.approx(row, abs=1e-3)
                assert answer["class"] == CLASSES[row.argmax()]
                assert answer["score"] == answer["scores"][answer["class"]]
        assert [answer["class"] for answer in predict(opened, "delays", ROWS)] == list(CLASSES)


def test_without_a_version_that_knows_these_classes_the_safe_default_answers(base: Settings) -> None:
    with client(base) as opened:
        described = {model["model"]: model for model in opened.get("/v1/models").json()}
        for name in ("young", "turned"):
            [answer] = predict(opened, name, ROWS[:1])
            assert (answer["served_by"], answer["class"], answer["scores"]) == ("safe_default", "on time", DEFAULT)
        [sentence] = described["turned"]["refused"].values()
        assert sentence.startswith("It was trained on a label of late, on time, early, and not of early, on time, late")
        assert described["young"]["safe_default"] == DEFAULT


def test_a_version_with_another_number_of_outputs_falls(base: Settings) -> None:
    with client(base) as opened:
        [answer] = predict(opened, "narrow", ROWS[:1])
        assert (answer["served_by"], answer["scores"]) == ("safe_default", DEFAULT)
        assert "wrong_shape" in answer["reason"]


def test_the_log_brings_every_class_into_the_lake(base: Settings) -> None:
    with client(base) as opened:
        predict(opened, "delays", ROWS)
        until(lambda: metric(opened, "tiltyard_shadow_total", model="delays", outcome="scored") >= 1)
    records = [orjson.loads(record) for path in sorted(base.spool.glob("*-*.*")) for record in spool.read(path).records]
    shadows = [record for record in records if record["kind"] == "shadow" and record["model"] == "delays"]
    assert shadows and all(list(record["scores"]) == list(CLASSES) for record in shadows)
    with rails_module.opened(base) as rails:
        request_log.deliver(rails)
        rows = rails.lake.connection.execute(f"select * from {stored(REQUEST)} where model = 'delays'").df()
        unseen = rails.lake.connection.execute(f"select * from {stored(REQUEST_SHADOW)}").df()
    for found in (rows, unseen):
        scores = THREE.scores(found["scores"])
        assert len(found) and THREE.usable(scores).all()
        np.testing.assert_allclose(found["score"], scores.max(axis=1))
    assert set(json.loads(rows["scores"].iloc[0])) == set(CLASSES)


def test_what_moved_the_likeliest_class_is_explained(base: Settings) -> None:
    with rails_module.opened(base) as rails:
        scorer = registry.load(rails, "delays", 1)
    rows = scorer.encoding.transform(pd.DataFrame(ROWS))
    for light, score in ((False, scorer.score_matrix), (True, scorer.score_light_matrix)):
        found = contribution.explain(scorer, rows[2].tolist(), light=light)
        assert found.of == "late" and found.score == pytest.approx(score(rows)[2, 2])
        assert found.base + sum(found.contributions.values()) == pytest.approx(found.score)
