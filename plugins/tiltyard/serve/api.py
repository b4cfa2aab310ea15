"""The HTTP interface as OpenAPI has it: what a request looks like, what comes back, with examples.

These objects only describe. The service reads requests itself (`incoming`), row by row, with a sentence for what is
wrong.
"""

from typing import Annotated, Any, Literal, TypedDict

from pydantic import BaseModel, ConfigDict, Field, JsonValue

from tiltyard.records import JsonObject

MODEL = "sla_breach"
ENTITY = "INC0034435"
"""A ticket of the last day that `make up` plays, of which everything is known."""
VALUE = Annotated[float, Field(allow_inf_nan=False)] | bool | Annotated[str, Field(max_length=1000)] | None


class Described(BaseModel):
    """Base of what a body looks like: nothing but these fields."""

    model_config = ConfigDict(extra="forbid")


class Row(Described):
    """What is to be predicted. With an entity, features that are not given are looked up as they are known now."""

    entity_id: str | None = Field(None, min_length=1, max_length=1000, examples=[ENTITY])
    keys: dict[str, str] | None = Field(
        None, description="Other keys of the feature views, where the entity's own row does not say.", examples=[{}]
    )
    features: dict[str, VALUE] | None = Field(None, description="Given values win. null: not known.", examples=[{}])
    prediction_time: str | None = Field(
        None, description="ISO 8601 with a zone; default: now. Only what was known then is looked up.", examples=[None]
    )


class PredictRequest(Described):
    """Rows to be scored, answered together."""

    rows: list[Row] = Field(min_length=1)
    request_id: str | None = Field(
        None,
        pattern=r"^[A-Za-z0-9._:-]{1,128}$",
        description="Yours, or the service makes one. The same request under the same id and API key has the same "
        "answer, is logged once and costs once, also while the first is under way; another request under it is refused "
        "with 409. A worker process remembers its newest 10,000 answers (64 MB of them, none over 1 MB) until it ends.",
        examples=[None],
    )


class Prediction(Described):
    """The answer of one row, and who gave it."""

    score: float = Field(description="the probability, or the number; of classes, the probability of the likeliest")
    likeliest: str | None = Field(None, alias="class", description="of classes: the likeliest")
    scores: dict[str, float] | None = Field(None, description="of classes: the probability of each")
    served_by: Literal["challenger", "champion", "previous", "light", "safe_default"]
    version: int | None = Field(description="null: the safe default has none")
    arm: Literal["champion", "challenger"]
    degraded: bool = Field(description="another tier than the arm's own answered")
    reason: str = Field(description="in_service, or which tier did not answer first, and why")
    items: list[dict[str, Any]] | None = Field(None, description="the most popular, where the model declares them")


class PredictResponse(Described):
    """The answers of a request."""

    request_id: str
    model: str
    predictions: list[Prediction] = Field(description="one per row, in their order")


class ExplainResponse(Described):
    """One row's score as a sum of its features' contributions."""

    request_id: str
    model: str
    version: int
    score: float
    base: float = Field(description="the mean score of the background rows; base and contributions add up to score")
    likeliest: str | None = Field(None, alias="class", description="of classes: the one whose probability it is")
    contributions: dict[str, float]
    method: str


class Refusal(Described):
    """Why a request was not answered."""

    error: str = Field(description="one sentence that says what to do")


class Route(TypedDict, total=False):
    """What FastAPI is told of a route, beside its path."""

    summary: str
    """The route in a few words."""
    response_model: None
    """None: answers are written as they are, not read through a model."""
    responses: dict[int | str, dict[str, object]]
    """Status → what such an answer looks like."""
    openapi_extra: JsonObject
    """What FastAPI does not find out by itself: the body, and the header with the API key."""


REFUSED: dict[int, str] = {
    400: "not JSON",
    401: "no key, or none that is known",
    403: "the key may not do this",
    404: "no such model in service",
    409: "the request id was used for another request",
    413: "too many bytes or rows",
    415: "not application/json",
    422: "a field is missing, unknown or of another kind",
    429: "over the key's rate or budget; see Retry-After",
    503: "not just now; try again",
}


def _inline(schema: JsonValue, parts: JsonObject) -> JsonValue:
    """A schema without references, since a body that FastAPI did not make cannot point into the list that it makes."""
    if isinstance(schema, dict):
        if "$ref" in schema:
            return _inline(parts[str(schema["$ref"]).rsplit("/", 1)[1]], parts)
        return {name: _inline(value, parts) for name, value in schema.items() if name != "$defs"}
    if isinstance(schema, list):
        return [_inline(entry, parts) for entry in schema]
    return schema


def _body(example: JsonValue) -> JsonObject:
    """The body of a request with rows, and the header with the API key."""
    schema = PredictRequest.model_json_schema()
    content: JsonObject = {"schema": _inline(schema, schema.get("$defs", {})), "example": example}
    return {"requestBody": {"required": True, "content": {"application/json": content}}, **_SECURED}


def _refusals(*statuses: int) -> dict[int | str, dict[str, object]]:
    return {status: {"model": Refusal, "description": REFUSED[status]} for status in statuses}


_SECURED: JsonObject = {
    "parameters": [
        {
            "name": "X-API-Key",
            "in": "header",
            "required": False,
            "schema": {"type": "string"},
            "description": "needed where the service has keys",
        }
    ]
}

PREDICT: Route = {
    "response_model": None,
    "summary": "Score rows",
    "responses": {200: {"model": PredictResponse}, **_refusals(400, 401, 403, 404, 409, 413, 415, 422, 429, 503)},
    "openapi_extra": _body(
        {"rows": [{"entity_id": ENTITY}]},
    ),
}
EXPLAIN: Route = {
    "response_model": None,
    "summary": "Explain one row's score",
    "responses": {200: {"model": ExplainResponse}, **_refusals(400, 401, 403, 404, 413, 415, 422, 429, 503)},
    "openapi_extra": _body({"rows": [{"entity_id": ENTITY}]}),
}
MODELS: Route = {
    "response_model": None,
    "summary": "Models in service",
    "responses": {200: {"model": list[dict[str, Any]]}, **_refusals(401, 429)},
    "openapi_extra": _SECURED,
}
HEALTH: Route = {"response_model": None, "summary": "Alive?", "responses": {200: {"model": dict[str, str]}}}
READY: Route = {
    "response_model": None,
    "summary": "Ready?",
    "openapi_extra": _SECURED,
    "responses": {200: {"model": dict[str, Any]}, 503: {"model": dict[str, Any], "description": "not yet"}},
}
METRICS: Route = {
    "response_model": None,
    "summary": "Metrics",
    "responses": {
        200: {"content": {"text/plain": {"schema": {"type": "string"}}}, "description": "Prometheus text"},
        **_refusals(401, 403, 429),
    },
    "openapi_extra": _SECURED,
}
