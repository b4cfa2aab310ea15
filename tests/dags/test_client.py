"""What our client sends, held against the models and rules of the installed Airflow's own REST API."""

import json
from collections.abc import Iterator
from dataclasses import fields
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Any

import httpx
import pytest
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ValidationError

from tiltyard.edge.airflow_api import Airflow, Pool, Run, TaskRun
from tiltyard.settings import TRAINING_POOL, Settings


class Api:
    """Airflow's pools and runs in memory: its own classes read every body, its own function changes a pool."""

    def __init__(self) -> None:
        self.pools: dict[str, Any] = {}
        self.runs: list[Any] = []
        self.statuses: list[tuple[str, int]] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        try:
            status, body = self._answer(request)
        except (ValidationError, RequestValidationError) as error:
            status, body = HTTPStatus.UNPROCESSABLE_ENTITY, {"detail": str(error)}
        self.statuses.append((request.method, int(status)))
        return httpx.Response(status, json=body)

    def _answer(self, request: httpx.Request) -> tuple[HTTPStatus, dict[str, Any]]:
        from airflow.api_fastapi.core_api.datamodels.dag_run import TriggerDAGRunPostBody
        from airflow.api_fastapi.core_api.datamodels.pools import PoolBody, PoolPatchBody
        from airflow.api_fastapi.core_api.services.public.pools import update_orm_from_pydantic
        from airflow.models.pool import Pool

        content = json.loads(request.content)

        def read(model: type[BaseModel]) -> Any:
            return model.model_validate(content)

        match request.method, request.url.path.removeprefix("/api/v2").split("/")[1:]:
            case "POST", ["auth", "token"]:
                return HTTPStatus.CREATED, {"access_token": "token"}
            case "POST", ["pools"]:
                pool = read(PoolBody)
                if pool.pool in self.pools:
                    return HTTPStatus.CONFLICT, {"detail": "exists"}
                self.pools[pool.pool] = Pool(**pool.model_dump())
                return HTTPStatus.CREATED, {}
            case "PATCH", ["pools", name]:
                update_orm_from_pydantic(self.pools[name], read(PoolPatchBody), None)
                return HTTPStatus.OK, {}
            case "POST", ["dags", _, "dagRuns"]:
                run = read(TriggerDAGRunPostBody)
                if run.logical_date in {before.logical_date for before in self.runs if before.logical_date}:
                    return HTTPStatus.CONFLICT, {"detail": "exists"}
                self.runs.append(run)
                return HTTPStatus.OK, {"dag_run_id": run.dag_run_id or f"run of {run.logical_date}"}
        return HTTPStatus.NOT_FOUND, {}


@pytest.fixture
def api() -> Api:
    return Api()


@pytest.fixture
def client(settings: Settings, api: Api) -> Iterator[Airflow]:
    with Airflow(settings, transport=httpx.MockTransport(api)) as client:
        yield client


def test_a_pool_is_set_as_often_as_one_likes(client: Airflow, api: Api) -> None:
    for slots in (2, 2, 3):
        client.set_pool(Pool(name=TRAINING_POOL, slots=slots, description="trainings"))
        pool = api.pools[TRAINING_POOL]
        assert (pool.pool, pool.slots, pool.include_deferred) == (TRAINING_POOL, slots, False)
        assert pool.description == "trainings"
    assert [answer for answer in api.statuses if answer[0] == "PATCH"] == [("PATCH", 200), ("PATCH", 200)]


@pytest.mark.parametrize("night", [None, datetime(2016, 4, 2, tzinfo=UTC)])
def test_a_run_is_triggered_with_and_without_a_logical_date(client: Airflow, night: datetime | None) -> None:
    assert client.trigger("features", {"as_of": "2016-04-02"}, night) == f"run of {night}"


def test_the_run_of_a_night_says_which_one_it_is_and_another_of_it_too(client: Airflow, api: Api) -> None:
    as_of = datetime(2016, 4, 2, tzinfo=UTC)
    assert client.trigger_night("incident__features", as_of) == "night_2016-04-02"
    assert client.trigger_night("incident__features", as_of).startswith("night_2016-04-02__")
    first, again = api.runs
    assert {run.note for run in api.runs} == {"The night of 2016-04-02"}
    assert first.conf == again.conf == {"as_of": "2016-04-02"}
    assert (first.data_interval_end, first.logical_date) == (as_of, datetime(2016, 4, 1, tzinfo=UTC))
    assert again.logical_date is None


def test_records_have_the_names_that_airflow_answers_with() -> None:
    from airflow.api_fastapi.core_api.datamodels.dag_run import DAGRunResponse
    from airflow.api_fastapi.core_api.datamodels.pools import PoolResponse
    from airflow.api_fastapi.core_api.datamodels.task_instances import TaskInstanceResponse

    for record, answer in ((Run, DAGRunResponse), (TaskRun, TaskInstanceResponse), (Pool, PoolResponse)):
        names = {field.serialization_alias or name for name, field in answer.model_fields.items()}
        assert {field.name for field in fields(record)} <= names
