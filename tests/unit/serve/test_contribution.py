"""What moves a score: it adds up, it is the same twice, and the process that works it out may die."""

import json
import os
import signal
import threading
import uuid
from collections import OrderedDict
from datetime import timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from fastapi.testclient import TestClient

from tests import served
from tiltyard import rails as rails_module
from tiltyard.errors import CheckFailed, Unavailable
from tiltyard.serve import contribution
from tiltyard.serve.contribution import Explainer
from tiltyard.serve.web import App
from tiltyard.target import YES_OR_NO, Bounded
from tiltyard.train.blocks import Rows
from tiltyard.train.candidate import parquet
from tiltyard.train.encoding import EncodedColumn, Encoding
from tiltyard.train.export import heavy_onnx, light_onnx
from tiltyard.train.fit import Fitter, Params
from tiltyard.train.scorer import Scorer

ENCODING = Encoding(
    (EncodedColumn("a", "numeric"), EncodedColumn("b", "boolean"), EncodedColumn("c", "categorical", ("x", "y")))
)


def trained(bounds: tuple[float, float] | None) -> Scorer:
    """Heavy and light as training makes them, on a number, a boolean and a category with gaps in them."""
    rng = np.random.default_rng(3)
    count = 400
    frame = pd.DataFrame(
        {
            "a": np.where(rng.random(count) < 0.1, np.nan, rng.normal(size=count)),
            "b": rng.random(count) < 0.5,
            "c": rng.choice(["x", "y", "rare"], count),
        }
    )
    push = frame["a"].fillna(0) + 2 * frame["b"] + (frame["c"] == "y")
    label = (push > 1).to_numpy() if bounds is None else np.clip(10 * push.to_numpy(), *bounds)
    target = YES_OR_NO if bounds is None else Bounded(bounds)
    fitter = Fitter(ENCODING, 1, 1, target)
    rows = Rows(ENCODING.transform(frame), label, np.arange(count) / 10)
    params = Params({"n_estimators": 30}, light_C=0.3)
    return Scorer.from_files(
        "tried",
        1,
        {
            "model.onnx": heavy_onnx(fitter.heavy(rows, params), rows.matrix, target),
            "light.onnx": light_onnx(fitter.light(rows, params), rows.matrix, target),
            "encoding.json": ENCODING.to_json().encode(),
            "reference.json": json.dumps(target.to_json()).encode(),
            "reference.parquet": parquet(frame.assign(label=label, score=0.5)),
        },
    )


@pytest.mark.parametrize("bounds", [None, (0.0, 30.0)])
@pytest.mark.parametrize("light", [False, True])
def test_contributions_add_up_to_the_score_and_are_the_same_twice(bounds: tuple[float, float] | None, light: bool):
    scorer = trained(bounds)
    score = scorer.score_light if light else scorer.score
    for row in (
        {"a": 1.5, "b": True, "c": "y"},
        {"a": None, "b": None, "c": "never seen"},
        {"a": 9e9, "b": False, "c": None},
    ):
        frame = pd.DataFrame([row], dtype=object)
        values = scorer.encoding.transform(frame)[0].tolist()
        explained = contribution.explain(scorer, values, light=light)
        assert explained.score == score(frame)[0]
        assert list(explained.contributions) == ["a", "b", "c"]
        assert explained.base + sum(explained.contributions.values()) == pytest.approx(explained.score, abs=1e-6)
        assert contribution.explain(scorer, values, light=light) == explained


def test_what_pushes_the_score_up_is_told_so() -> None:
    scorer = trained(None)
    up = contribution.explain(scorer, [2.0, 1.0, 1.0]).contributions
    down = contribution.explain(scorer, [-2.0, 0.0, 0.0]).contributions
    assert all(value > 0 for value in up.values())
    assert all(value < 0 for value in down.values())


def test_a_row_of_another_width_is_refused() -> None:
    with pytest.raises(CheckFailed, match="has 3 features, not 2"):
        contribution.explain(trained(None), [1.0, 2.0])


# -- the child --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory, postgres_url: str):
    settings = served.home(tmp_path_factory.mktemp("explain"), postgres_url, f"explain{uuid.uuid4().hex[:8]}_")
    with rails_module.opened(settings) as rails:
        spec = served.written(settings.models, "told")
        number = served.register(rails, spec, served.FIRST, served.model(1), served.model(2))
        served.promote(rails, spec, number, served.FIRST + served.DAY)
        served.written(settings.models, "young")
    return settings


def test_over_http_it_adds_up_and_a_child_that_dies_or_hangs_is_replaced(base, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TILTYARD_DATABASE_PASSWORD_OF_A_TEST", "hidden")
    at = (served.FIRST + timedelta(days=20)).timestamp()
    app = App(base, now=lambda: at)

    def ask(opened: TestClient, features=served.ROW, model: str = "told"):
        return opened.post(f"/v1/models/{model}/explain", json={"rows": [{"features": features}]})

    with TestClient(app) as opened:
        explainer: Explainer = app.service.explainer
        answer = ask(opened)
        assert answer.status_code == 200, answer.text
        said = answer.json()
        score = opened.post("/v1/models/told/predict", json={"rows": [{"features": served.ROW}]}).json()
        assert said["score"] == score["predictions"][0]["score"]
        assert said["base"] + sum(said["contributions"].values()) == pytest.approx(said["score"], abs=1e-6)
        assert set(said["contributions"]) == set(served.ROW)
        assert said["version"] == 1
        assert b"hidden" not in Path(f"/proc/{explainer._child.pid}/environ").read_bytes()

        assert ask(opened, {}).status_code == 422
        assert ask(opened, model="young").status_code == 503
        two = opened.post("/v1/models/told/explain", json={"rows": [{"features": served.ROW}] * 2})
        assert (two.status_code, "more than 1" in two.text) == (413, True)

        stopped = explainer._child.pid
        os.kill(stopped, signal.SIGSTOP)
        killer = threading.Timer(0.5, os.kill, (stopped, signal.SIGKILL))
        killer.start()
        crashed = ask(opened)
        assert (crashed.status_code, "ended before it had an answer" in crashed.text) == (503, True)
        assert ask(opened).json()["contributions"] == said["contributions"]

        explainer._answer_s = 0.5
        hung = explainer._child
        os.kill(hung.pid, signal.SIGSTOP)
        late = ask(opened)
        assert (late.status_code, "longer than 0.5 s" in late.text) == (503, True)
        assert hung.poll() == -signal.SIGKILL


def test_files_that_are_not_what_was_registered_are_not_parsed(base, tmp_path: Path) -> None:
    folder = tmp_path / "told" / "1"
    folder.mkdir(parents=True)
    (folder / "model.onnx").write_bytes(b"another one")
    digests = dict.fromkeys(
        ("model.onnx", "light.onnx", "encoding.json", "reference.json", "reference.parquet"), "0" * 64
    )
    with pytest.raises(Unavailable, match="not what was registered"):
        contribution._scorer(tmp_path, contribution.Question("told", 1, digests, [], False), OrderedDict())


def test_no_more_than_a_few_wait(tmp_path: Path) -> None:
    import asyncio

    explainer = Explainer(tmp_path)
    explainer._waiting = contribution.WAITING
    with pytest.raises(Unavailable, match="are waiting already"):
        asyncio.run(explainer.ask({}, []))
    explainer.close()
