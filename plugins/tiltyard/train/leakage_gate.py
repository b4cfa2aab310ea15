"""The leakage gate of training: may a model learn from this frame?

A training frame is held to the rules on write times (leak/rules.py), to what is said of its columns (written_later.py),
to what the arrivals of its features allow (prepare/latency.py), and to the evidence in its own data (leak/evidence.py).
expectations/leakage.yaml says which of these stops a training.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime, timedelta

import pandas as pd

from tiltyard.errors import BadInput
from tiltyard.lake import quoted
from tiltyard.leak import evidence, rules, suite
from tiltyard.leak.case import Sample
from tiltyard.leak.rules import LOADER_TIMES, RuleResult
from tiltyard.leak.suspicion import Suspicion
from tiltyard.prepare import columns as columns_said
from tiltyard.prepare import embargo
from tiltyard.prepare.columns import Columns
from tiltyard.prepare.frame import TrainingFrame
from tiltyard.rails import Rails
from tiltyard.spec import Spec
from tiltyard.suites import CheckReport
from tiltyard.train import written_later

SUITE = "training_frame"
"""Under this name the results are kept and their page is rendered."""
EVIDENCE_ROWS = 100_000
"""Rows of a training frame that are weighed before every training, of whole entities."""
LOG_ROWS = 10_000
"""Rows of a log that its aggregates are tried on, of whole entities: it is hundreds of aggregates."""
LOG_RATIO = 1.5
"""A staging table is a log of its entities from so many rows per entity on."""
_PARTS = 10_000
"""Entities are drawn by their hash, modulo this."""


def check_frame(
    rails: Rails,
    spec: Spec,
    training_frame: TrainingFrame,
    as_of: datetime | None = None,
    *,
    label: str = "label",
    render: bool = True,
    record: bool = True,
) -> CheckReport:
    """Hold a training frame to every rule about leakage. Without `as_of`, as of the night that its end speaks of.

    The results are kept in the lake (`record`), with a page for people (`render`).

    Raises BadInput when the frame lacks columns that a frame must have.
    """
    as_of = as_of or training_frame.end - timedelta(microseconds=1) + spec.label.lag
    with _seen(rails, f"frame_{spec.name}", training_frame) as relation:
        results = _results(rails, spec, training_frame, relation, as_of, label)
    return suite.report(rails, results, as_of, subject=spec.name, suite_name=SUITE, render=render, record=record)


@contextmanager
def _seen(rails: Rails, name: str, training_frame: TrainingFrame) -> Iterator[str]:
    """The frame's rows, whose bytes were held against its name, as SQL of the lake's engine."""
    connection = rails.lake.connection
    connection.register(name, training_frame.table())
    try:
        yield quoted(name)
    finally:
        connection.unregister(name)


def _results(
    rails: Rails, spec: Spec, training_frame: TrainingFrame, relation: str, as_of: datetime, label: str
) -> list[RuleResult]:
    connection = rails.lake.connection
    described = connection.execute(f"describe select * from {relation}").fetchall()
    columns = {name: kind for name, kind, *_ in described}
    for column in (spec.key, "prediction_time", label):
        if column not in columns:
            raise BadInput(f"The training frame {training_frame.path} has no column '{column}'; build it again.")
    features: dict[str, list[str]] = {view: [] for view in spec.prediction.features}
    for feature in training_frame.features:
        features.setdefault(feature.view, []).append(feature.name)
    names = [feature.name for feature in training_frame.features]
    hidden = {label, *rails.lake.columns(spec.label.table)} - {spec.key}
    table, said = f"frame_{spec.name}", columns_said.read(rails.settings)
    return [
        *rules.point_in_time(connection, table, relation, columns, features),
        *rules.used_without_available_at(connection, table, relation, features),
        *rules.repeated_prediction(connection, table, relation, spec.key),
        *rules.label_among_features(connection, table, relation, columns, names, label, hidden),
        *written_later.frame_results(rails, spec, training_frame, table, relation, said, as_of),
        *rules.immature_label(connection, table, relation, spec, label, as_of),
        *embargo.frame_results(rails, spec, table, relation, features, as_of),
        *evidence_results(rails, spec, training_frame, table, relation, label, as_of, said),
    ]


def evidence_results(
    rails: Rails,
    spec: Spec,
    frame: TrainingFrame,
    table: str,
    relation: str,
    label: str,
    as_of: datetime,
    said: Columns,
) -> tuple[RuleResult, ...]:
    """What the data of a training frame tells by itself (evidence.py): two rules, critical and warning.

    `relation`: SQL of the frame; `table`: the name that it bears in the results. The source's staging tables that
    hold several rows per entity are its logs: has an aggregate seen rows that came after the prediction? Nothing is
    held against what is `said` to be planned.
    """
    drawn = f"hash(f.{quoted(spec.key)}) % {_PARTS} < {_PARTS * EVIDENCE_ROWS // max(frame.rows, 1)}"
    planned = frozenset(feature.name for feature in frame.features if said.is_planned(feature.view, feature.name))
    sample = replace(_sample(rails, spec, frame, relation, label, as_of, drawn), planned=planned)
    asked = [
        replace(sample, frame=sample.frame.assign(**{label: question}))
        for question in spec.target.questions(sample.frame[label].to_numpy())
    ]
    weighed = evidence.weigh(asked[0])
    suspicions: dict[tuple[str, str], Suspicion] = {}
    for found in (weighed, *(evidence.weigh(question) for question in asked[1:])):
        for suspicion in found.suspicions:
            suspicions.setdefault((suspicion.feature, suspicion.kind), suspicion)
    for log in _logs(rails, spec, frame, as_of, drawn):
        for question in asked:
            rows = question.frame[question.frame[spec.key].isin(log[spec.key].unique())]
            logged = replace(question, frame=rows, history=log, history_as_of="available_at")
            for suspicion in evidence.weigh(logged, kinds={"future_in_aggregate"}).suspicions:
                suspicions.setdefault((suspicion.feature, suspicion.kind), suspicion)
    results: list[RuleResult] = []
    for severity, rule in suite.EVIDENCE.items():
        of_severity = [suspicion for suspicion in suspicions.values() if suspicion.severity == severity]
        if weighed.idle and not of_severity:
            results.append(RuleResult(rule, table, "*", 0, 0, weighed.idle))
        else:
            results += _of_features(rule, table, sample, of_severity)
    return tuple(results)


def _of_features(rule: str, table: str, sample: Sample, suspicions: Sequence[Suspicion]) -> list[RuleResult]:
    """A result for each feature of the sample: how many suspicions there are, and their sentences."""
    sentences: dict[str, list[str]] = {name: [] for name in sample.features}
    for suspicion in suspicions:
        sentences[suspicion.feature].append(f"{suspicion.kind}: {suspicion.evidence}")
    rows = len(sample.frame)
    return [RuleResult(rule, table, name, rows, len(parts), " ".join(parts)) for name, parts in sentences.items()]


def _sample(
    rails: Rails, spec: Spec, frame: TrainingFrame, relation: str, label: str, as_of: datetime, drawn: str
) -> Sample:
    """The frame's rows that are `drawn`, with the time of their outcome.

    That comes from the label table, as it was when the frame was made; where the table has no time, there is none.
    """
    key, names = spec.key, [feature.name for feature in frame.features]
    columns = rails.lake.columns(spec.label.table)
    moment = next((time for time in ("event_time", "available_at") if time in columns), None)
    label_time = "label_time"
    while label_time in {*names, key, label}:
        label_time += "_"
    shown = ", ".join(f"f.{quoted(name)}" for name in (key, "prediction_time", label, *names))
    source = f"{relation} as f"
    if moment:
        shown += f", l.{moment} as {quoted(label_time)}"
        labels = rails.lake.relation(spec.label.table, as_of, frame.at)
        outcomes = (
            f"select {quoted(key)}, prediction_time, max({moment}) as {moment} from {labels} "
            f"where {quoted(key)} is not null group by 1, 2"
        )
        on = f"l.{quoted(key)} = f.{quoted(key)} and l.prediction_time = f.prediction_time"
        source += f" left join ({outcomes}) as l on {on}"
    rows = rails.lake.connection.execute(
        f"select {shown} from {source} where {drawn} order by f.prediction_time, f.{quoted(key)}"
    )
    return Sample(
        frame=rows.df(),
        label=label,
        prediction_time="prediction_time",
        entity=key,
        label_time=label_time if moment else None,
        features=tuple(names),
    )


def _logs(rails: Rails, spec: Spec, frame: TrainingFrame, as_of: datetime, drawn: str) -> Iterator[pd.DataFrame]:
    """The staging tables of the model's source that hold several rows per entity, of the entities that are `drawn`."""
    key = quoted(spec.key)
    connection = rails.lake.connection
    for table in suite.staging_tables(rails, spec.source):
        columns = rails.lake.columns(table)
        if spec.key not in columns:
            continue
        rows = f"select * from {rails.lake.relation(table, as_of, frame.at)} as f where {drawn}"
        counted = connection.execute(f"select count(*), count(distinct {key}) from ({rows})").fetchone()
        assert counted is not None
        if counted[0] > LOG_RATIO * counted[1]:
            loader_times = ", ".join(quoted(name) for name in columns if name in LOADER_TIMES)
            shown = f"* exclude ({loader_times})" if loader_times else "*"
            thinned = f"hash({key}, 'log') % {_PARTS} < {_PARTS * LOG_ROWS // counted[0]}"
            yield connection.execute(f"select {shown} from ({rows}) where {thinned}").df()
