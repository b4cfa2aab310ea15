"""The dbt project as its files describe it, and whether a spec fits it. Reads no database and runs no dbt."""

import difflib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tiltyard import clock
from tiltyard.errors import BadInput
from tiltyard.prepare import columns, contracts, dbt_files, names, schedules
from tiltyard.prepare.columns import Columns
from tiltyard.settings import Settings
from tiltyard.spec import Horizon, Spec, feature_key

_DECIDES = ("date", "timestamptz", "timestamp with time zone")
"""Types of a column until which a horizon may go."""
RESERVED = ("prediction_time", "event_time", "available_at", "ingested_at", "built_at")
"""Columns of a feature view that are no features."""


@dataclass(frozen=True)
class Model:
    """What the dbt project says of one table."""

    name: str
    """Name of the table, without its schema."""
    description: str
    """Its description; empty where the .yml has none."""
    columns: tuple[str, ...]
    """Columns that the .yml describes, in its order."""
    promises: Mapping[str, str] = field(default_factory=dict)
    """`config.meta.tiltyard`: of a label table, `horizon` and `delay` as durations, like `14d`."""
    types: Mapping[str, str] = field(default_factory=dict)
    """Column → its data_type; empty text where the .yml has none."""


@dataclass(frozen=True)
class Project:
    """The dbt project, read once for all that is held against it."""

    models: Mapping[str, Model]
    """Name of a table → what its .yml says of it."""
    queries: Mapping[str, Path]
    """Name of a table → the file of its SQL, of those that have one."""
    sources: tuple[str, ...]
    """Names of the sources: the folders of models/staging, sorted."""
    said: Columns
    """What is said of its columns, and which is made of which."""


def read(settings: Settings) -> Project:
    """The dbt project as it is now. Raises BadInput naming the file that cannot be read, and the line of what is said
    of a column and does not hold."""
    folder = settings.dbt / "models"
    return Project(
        models=_models(folder),
        queries=_queries(folder),
        sources=tuple(sorted(path.name for path in folder.glob("staging/*") if path.is_dir())),
        said=columns.read(settings),
    )


def _queries(folder: Path) -> dict[str, Path]:
    """Table → its SQL. Raises BadInput where two files would make one table."""
    paths: dict[str, Path] = {}
    for path in sorted(folder.rglob("*.sql")):
        first = paths.setdefault(path.stem.lower(), path)
        if first != path:
            raise BadInput(f"{path}: {first} makes a table '{first.stem}' already; give it another name.")
    return {path.stem: path for path in paths.values()}


def _models(folder: Path) -> dict[str, Model]:
    models: dict[str, Model] = {}
    for path in sorted(folder.rglob("*.yml")):
        _, content = dbt_files.read(path)
        for model in content.get("models") or ():
            described = model.get("columns") or ()
            models[model["name"]] = Model(
                name=model["name"],
                description=str(model.get("description", "")).strip(),
                columns=tuple(column["name"] for column in described),
                promises={name: str(value) for name, value in _said(model).items()},
                types={column["name"]: column.get("data_type") or "" for column in described},
            )
    return models


def _said(model: Mapping[str, Any]) -> Mapping[str, Any]:
    """`config.meta.tiltyard` of a model."""
    said: Mapping[str, Any] = ((model.get("config") or {}).get("meta") or {}).get("tiltyard") or {}
    return said


def check_spec(project: Project, settings: Settings, spec: Spec) -> None:
    """Does the dbt project have what the spec names? Raises BadInput saying what to mend, with close names."""
    where = f"{settings.models / spec.name / 'spec.yaml'}"

    def model(name: str, what: str, prefix: str) -> Model:
        return _model(project, name, what, prefix, where)

    spine = model(spec.prediction.spine, "spine", "spn_")
    views = [model(name, "feature view", "ftr_") for name in spec.prediction.features]
    label = model(spec.label.table, "label table", "lbl_")
    if spec.key not in spine.columns:
        raise BadInput(
            f"{where}: the entity is {spec.entity}, but {spine.name} has no column {spec.key}; "
            "mend the entity, or add the column to the model and its .yml."
        )
    for column in ("prediction_time", "available_at"):
        _has(spine, column, where)
    _check_label(spec, label, where)
    if spec.label.until:
        _has(spine, spec.label.until, where)
        if (kind := spine.types.get(spec.label.until, "").lower()) not in ("", *_DECIDES):
            raise BadInput(
                f"{where}: label.horizon goes until {spec.label.until}, a {kind} of {spine.name}; cast it to a date "
                "or a timestamptz there."
            )
    if spec.fallback.popular is not None:
        items = model(spec.fallback.popular.table, "table of popular items", "pop_")
        for column in ("item_id", "item_name", "score", "event_time", "available_at"):
            _has(items, column, where)
    _check_views(spec, spine, views, where)
    _check_rates(spec, [(view.name, project.queries[view.name]) for view in views], where)
    popular = (spec.fallback.popular.table,) if spec.fallback.popular else ()
    for table in (spine.name, *spec.prediction.features, label.name, *popular):
        if why := project.said.disagreements.get(table):
            raise BadInput(why)
    if spec.source not in project.sources:
        close = _close_to(spec.source, project.sources)
        raise BadInput(f"{where}: the dbt project has no source '{spec.source}'{close}")
    _check_hours(settings, spec, where)
    card = settings.models / spec.name / "card.md"
    if not card.is_file():
        raise BadInput(f"{card} is missing; write what {spec.name} is for, why this label, and its known limits.")


def _check_hours(settings: Settings, spec: Spec, where: str) -> None:
    """A model that is answered by the hour needs a source that is looked for as often, or never by itself."""
    schedule = contracts.schedule(settings, spec.source) if spec.prediction.is_hourly else None
    if schedule is not None and not schedules.covers(schedule, spec.prediction.every):
        raise BadInput(
            f"{where}: prediction.every is {clock.format_duration(spec.prediction.every)}, but its source "
            f"{spec.source} is looked for by '{schedule}'; write a schedule that runs as often into "
            f"{contracts.path_of(spec.source)}, like schedule: '@hourly', or every: 1d into the spec."
        )


def _check_label(spec: Spec, label: Model, where: str) -> None:
    """The label table has its columns, and speaks of the same kind of label and the same times as the spec."""
    for column in (spec.key, "prediction_time", "label", "event_time", "available_at"):
        _has(label, column, where)
    if spec.label.trusted is not None:
        _has(label, spec.label.trusted.column, where)
    if wrong := spec.target.wrong_type(label.types.get("label")):
        raise BadInput(f"{where}: label: {label.name} is given {wrong}; mend the spec, or the label's data_type.")
    for part, promised in (("horizon", spec.label.promised), ("delay", Horizon(spec.label.delay))):
        made_for = label.promises.get(part)
        if made_for is not None and Horizon.parse(made_for) != promised:
            raise BadInput(
                f"{where}: label.{part} is {promised}, but {label.name} is made for {made_for}; give both the same."
            )


def _check_views(spec: Spec, spine: Model, views: Sequence[Model], where: str) -> None:
    """Every view has its key in the spine, no two views share a feature, and the gate's slices are features."""
    for view in views:
        key = feature_key(view.name)
        for column in (key, "event_time", "available_at"):
            _has(view, column, where)
        if key not in spine.columns:
            raise BadInput(
                f"{where}: {view.name} is keyed by {key}, which the spine {spine.name} does not have; "
                f"add {key} to {spine.name} or take the view out."
            )
    keys = {spec.key, *(feature_key(view.name) for view in views)}
    view_of: dict[str, str] = {}
    spelled: dict[str, str] = {}
    for view in views:
        for column in (name for name in view.columns if name not in {feature_key(view.name), *RESERVED}):
            if wrong := names.wrong_feature(column, spec, keys):
                raise BadInput(f"{where}: {view.name} has a column '{column}', {wrong}; rename it in dbt.")
            same = spelled.setdefault(column.lower(), column)
            first = view_of.setdefault(same, view.name)
            if first != view.name:
                raise BadInput(f"{where}: {view.name} and {first} both have a feature {column}; rename one.")
            if same != column:
                raise BadInput(
                    f"{where}: {view.name} has the columns '{same}' and '{column}', which are one to the lake; "
                    "rename one."
                )
    for name in spec.gate.slices:
        if name not in view_of:
            raise BadInput(f"{where}: gate.slices: no feature view has a column '{name}'{_close_to(name, view_of)}")


def _check_rates(spec: Spec, views: Sequence[tuple[str, Path]], where: str) -> None:
    """A past rate of a label of several classes says of which class it is."""
    if spec.target.kind != "classes":
        return
    for name, path in views:
        call = re.search(r"matured_label_history\((.*?)\)\s*}}", path.read_text(encoding="utf-8"), re.DOTALL)
        if call and re.search(rf"labels\s*=\s*['\"]{spec.label.table}['\"]", call[1]) and "classes" not in call[1]:
            raise BadInput(
                f"{where}: {name} keeps a past rate of {spec.label.table}, whose label is one of several classes: say "
                f"in {path.name} which, like classes={{'late': 'late'}}, or take the view out."
            )


def _model(project: Project, name: str, what: str, prefix: str, where: str) -> Model:
    """The model called `name`, which has both its SQL and its .yml. Raises BadInput otherwise."""
    if name in project.models and name in project.queries:
        return project.models[name]
    if name in project.queries:
        raise BadInput(f"{where}: {name} has its SQL, but no .yml describes it; write {name}.yml beside {name}.sql.")
    if name in project.models:
        raise BadInput(f"{where}: {name} has its .yml, but no SQL; write {name}.sql beside {name}.yml.")
    names = [model for model in project.models if model.startswith(prefix)]
    raise BadInput(f"{where}: the dbt project has no {what} '{name}'{_close_to(name, names)}")


def _has(model: Model, column: str, where: str) -> None:
    if column not in model.columns:
        raise BadInput(f"{where}: {model.name} has no column {column}; add it to the model and its .yml.")


def _close_to(name: str, names: Iterable[str]) -> str:
    """The end of a sentence that says which names there are: the close ones, or else all."""
    names = sorted(names)
    close = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
    if close:
        return f"; did you mean {' or '.join(close)}?"
    return f"; there are {', '.join(names)}." if names else "; there are none."
