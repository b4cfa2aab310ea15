"""What past nights hold whatever the policy: rows, truth as it came in, and versions with their scores. In memory.

A hindcast under policies asks the same questions of the same nights many times. Everything that no gate and no drift
policy can change is made once, kept under home/hindcast by the digest of what it was made from, and read from there:

- the rows of every night, point in time, as the shadow stage would have had them on that night;
- their truth with the instant at which each label became known, so that `ModelPast.truth_at` sees no later one;
- the batches' verdicts and data incidents (`checks`), night by night;
- for every night on which anybody wants to train, the version: the leakage gate and `training` as they are, without
  MLflow. A version that the ledger has already is taken from there.

Work is done in `Workers`, processes with rails of their own. Whoever asks takes the results in an order of his own, so
that the number of processes changes nothing but the time.
"""

import hashlib
import json
import os
from collections.abc import Callable, Collection
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from functools import cached_property
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from tiltyard import target
from tiltyard.clock import NIGHT, night_closing
from tiltyard.errors import BadInput, CheckFailed
from tiltyard.files import whole, whole_folder
from tiltyard.lake import qualified
from tiltyard.prepare import data_incidents, features, frame, truth
from tiltyard.prepare.transform import BuildSummary
from tiltyard.rails import Rails
from tiltyard.records import DataIncident, VersionFacts
from tiltyard.rewind import worker
from tiltyard.settings import Settings
from tiltyard.spec import DECIDED, Spec, find
from tiltyard.train import candidate, leakage_gate, profile, registry, training
from tiltyard.train.blocks import Untrainable
from tiltyard.train.encoding import Encoding
from tiltyard.train.fit import Tuned
from tiltyard.train.scorer import FILES, Scorer, answers, session

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

LAYOUT = 3
"""Part of every kept file's name: raise it when the same inputs would be kept otherwise."""


@dataclass(frozen=True, eq=False)
class ModelPast:
    """One model's nights, in the order of prediction times. n rows; a night is a date's ordinal."""

    spec: Spec
    """The model."""
    first: date
    """The first night."""
    last: date
    """The last night."""
    keys: pd.DataFrame
    """(n, 2 + slices) entity_id, prediction_time, and a column `slice_<name>` per declared slice."""
    night: Ints
    """(n,) the night that scored the row."""
    cohort: Ints
    """(n,) the night that names the row's cohort: the same one, unless a column tells when each row is decided."""
    revised: Ints
    """(labels,) the row of every label that came, in the order of their instants."""
    revised_at: Ints
    """(labels,) the instant at which it came, in microseconds since 1970."""
    revised_to: Floats
    """(labels,) its value."""
    stopped: set[date] = field(default_factory=set)
    """Nights on which the spine or a feature view of the model was not good: nothing is scored and decided on them.
    Filled as nights are judged, as is `broken`."""
    broken: dict[date, tuple[DataIncident, ...]] = field(default_factory=dict)
    """The data incidents that were open after a night (data_incidents.of_model)."""

    @property
    def rows(self) -> int:
        """n."""
        return len(self.night)

    @cached_property
    def time(self) -> Ints:
        """Microseconds since 1970 of the prediction times."""
        return _micros(self.keys["prediction_time"])

    @cached_property
    def instants(self) -> NDArray[np.datetime64]:
        """The prediction times, UTC, as numpy has them: pandas would make an object of each on every cut."""
        return self.time.view("datetime64[us]")

    @cached_property
    def slices(self) -> dict[str, NDArray[Any]]:
        """Slice column → its (n,) values."""
        return {name: self.keys[f"slice_{name}"].to_numpy(dtype=object) for name in self.spec.gate.slices}

    def truth_at(self, as_of: datetime) -> Floats:
        """The label of every row as known at `as_of`: 0, 1 (or a number within its bounds), or NaN."""
        labels = np.full(self.rows, np.nan)
        end = int(np.searchsorted(self.revised_at, _micro(as_of), side="right"))
        labels[self.revised[:end]] = self.revised_to[:end]
        return labels

    @cached_property
    def truth(self) -> Floats:
        """The last label that came, whenever it came: what hindsight measures by."""
        labels = np.full(self.rows, np.nan)
        labels[self.revised] = self.revised_to
        return labels

    def matured_at(self, as_of: datetime) -> NDArray[np.bool_]:
        """Rows of whole cohorts that have had their time to be judged (truth.cutoff)."""
        cutoff = truth.cutoff(self.spec, as_of)
        return (self.time < _micro(cutoff)) & (self.cohort <= cutoff.date().toordinal())


@dataclass(frozen=True, eq=False)
class PastVersion:
    """A version that was trained on a night, with what it makes of every row and night of the past.

    Rows of nights up to its training are scored and counted, too; nobody may look at them.
    """

    inputs: str
    """The folder's name under which it is kept, from the digest of what made it."""
    scores: Floats
    """(n, *shape) its scores; NaN where it gave none."""
    reference: dict[str, Any]
    """What it remembers of its training, as reference.json holds it."""
    facts: VersionFacts
    """How it was made."""
    counted: profile.Nights
    """Every night's rows in the version's own cells, as the shadow stage counts them."""

    @cached_property
    def remembered(self) -> profile.Reference | None:
        """The histograms kept with the version; None where there are none."""
        return profile.read(self.reference)

    @property
    def loss_high(self) -> float | None:
        """The upper end of the interval of its held-out measure (target.measure)."""
        measured = self.facts.metrics.figure(target.read(self.reference).measure) if self.facts.metrics else None
        high = measured.high if measured else None
        return None if high is None else float(high)

    def seen(self, trained: date, night: date, stopped: Collection[date]) -> profile.Nights:
        """Its nights in production, from the one after its training to `night`."""
        nights = self.counted.nights
        inside = (nights > trained.toordinal()) & (nights <= night.toordinal())
        if stopped:
            inside &= ~np.isin(nights, [day.toordinal() for day in stopped])
        return profile.Nights(nights[inside], {name: rows[inside] for name, rows in self.counted.counts.items()})

    def missing(self, seen: profile.Nights) -> dict[str, float]:
        """Feature → the share of its values that was missing on these nights."""
        reference = self.remembered
        if reference is None or not len(seen.nights):
            return {}
        return {
            column.name: float(profile.missing(seen.counts[column.name].sum(axis=0)))
            for column in reference.columns
            if column.kind == "feature" and column.name in seen.counts
        }


@dataclass(frozen=True)
class Kept:
    """Where a worker has kept what a training gave. One of the three is given."""

    inputs: str | None = None
    """Folder of the whole version."""
    line: str | None = None
    """Folder of its scores alone."""
    reason: str | None = None
    """Why there is none."""


TRAINERS = ("optuna", "xgboost", "sklearn.linear_model", "onnxmltools")
JUDGES = ("great_expectations",)
"""Imported while the lake is being built and there is nothing else to do: seconds."""


class Workers:
    """Processes that make what is kept. Each opens rails of its own; all end with this process."""

    def __init__(self, settings: Settings, jobs: int, *, judges: bool = False) -> None:
        one_thread = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
        before = {name: os.environ.get(name) for name in one_thread}
        os.environ.update(one_thread)  # as many processes as cores: a second thread in each only waits
        try:
            spawn = get_context("spawn")
            self._pool = ProcessPoolExecutor(jobs, spawn, initializer=worker.begin, initargs=(settings, TRAINERS, 10))
            self._judge = ProcessPoolExecutor(1, spawn, initializer=worker.begin, initargs=(settings, JUDGES, 0))
            for pool, processes in ((self._pool, jobs), (self._judge, 1 if judges else 0)):
                for _ in range(processes):
                    pool.submit(os.getpid)
        finally:
            for name, value in before.items():
                os.environ.pop(name, None) if value is None else os.environ.update({name: value})

    def __enter__(self) -> "Workers":
        return self

    def __exit__(self, *_: object) -> None:
        for pool in (self._pool, self._judge):
            pool.shutdown(cancel_futures=True)

    def check(self, as_of: datetime, build: BuildSummary) -> "Future[None]":
        """Judge a night's batch, of which the build said this. In the order in which nights are asked for, by one
        process: what a night shows is held against the ones before it."""
        return self._judge.submit(_check, as_of, build)

    def gather(self, spec: Spec, first: datetime, last: datetime, snapshot: int) -> "Future[str]":
        """Put a model's rows of these nights together, as of the lake's snapshot: the folder in which they are."""
        return self._pool.submit(_gather, spec.name, first, last, snapshot)

    def matured(self, spec: Spec, as_of: datetime, snapshot: int) -> "Future[int]":
        """How many matured labels a training frame of the night would hold."""
        return self._pool.submit(_matured, spec.name, as_of, snapshot)

    def line(self, spec: Spec, as_of: datetime, snapshot: int, rows: str) -> "Future[Kept]":
        """The scores of the version that a training on this night gives, and nothing else of it."""
        return self._pool.submit(_line, spec.name, as_of, snapshot, rows)

    def train(self, spec: Spec, as_of: datetime, snapshot: int, rows: str) -> "Future[Kept]":
        """The whole version, if the leakage gate lets a model learn from its frame."""
        return self._pool.submit(_train, spec.name, as_of, snapshot, rows)


# -- the nights ---------------------------------------------------------------------------------------------


def is_judged(rails: Rails, as_of: datetime) -> bool:
    """Whether the night's batch of every source was checked."""
    records = (rails.ledger.features_run(source, night_closing(as_of)) for source in rails.settings.sources)
    return all(record is not None and record.status in ("checked", "done", "stopped") for record in records)


def _check(as_of: datetime, build: BuildSummary) -> None:
    for source in worker.rails().settings.sources:
        features.check_more(worker.rails(), source, as_of, build, (), render=False)


def _gather(model: str, first: datetime, last: datetime, snapshot: int) -> str:
    """Keep the rows of [first, last] with their features, and their labels. Returns the name: the digest of both."""
    rails = worker.rails()
    spec = rails.ledger.bounded(find(rails.settings.models, model))
    start = first - NIGHT
    rows = frame.build(rails, spec, start, last, last, snapshot)
    spine = rails.lake.query(
        f'select "{spec.key}", prediction_time, min(available_at) as spine_known '
        f"from {{{qualified(spec.prediction.spine)}}} where prediction_time >= $start and prediction_time < $end "
        "group by all",
        last,
        {"start": start, "end": last},
        snapshot,
    )
    rows = rows.merge(spine, on=[spec.key, "prediction_time"], how="left", validate="many_to_one")
    night = rows["prediction_time"].dt.floor("D") + pd.Timedelta(days=1)
    rows = rows[rows["spine_known"] <= night].drop(columns="spine_known").reset_index(drop=True)
    labels = rails.lake.query(
        f'select cast("{spec.key}" as varchar) as entity_id, prediction_time, available_at, '
        f"{spec.target.sql('label')} as label from {{{qualified(spec.label.table)}}} "
        "where label is not null and prediction_time >= $start and prediction_time < $end order by available_at",
        last + 366 * timedelta(days=1),
        {"start": start, "end": last},
        snapshot,
    )
    files = {"rows.parquet": candidate.parquet(rows), "labels.parquet": candidate.parquet(labels)}
    name = hashlib.sha256(b"".join(files.values()) + f"{LAYOUT}".encode()).hexdigest()[:32]
    folder = home(rails.settings) / "rows" / name
    if not folder.exists():
        with whole_folder(folder) as made:
            for file, content in files.items():
                (made / file).write_bytes(content)
    return name


def read(rails: Rails, spec: Spec, first: datetime, last: datetime, rows: str) -> ModelPast:
    """The past that `_gather` kept under the name `rows`."""
    folder = home(rails.settings) / "rows" / rows
    decided = DECIDED if spec.label.until else "prediction_time"
    frame_ = pd.read_parquet(
        folder / "rows.parquet", columns=[*dict.fromkeys([spec.key, "prediction_time", decided, *spec.gate.slices])]
    )
    keys = pd.DataFrame({"entity_id": frame_[spec.key].astype(str), "prediction_time": frame_["prediction_time"]})
    for name in spec.gate.slices:
        values = frame_[name].astype(object)
        keys[f"slice_{name}"] = values.where(values.notna(), truth.MISSING).map(str)
    labels = pd.read_parquet(folder / "labels.parquet")
    index = pd.MultiIndex.from_arrays([keys["entity_id"], _micros(keys["prediction_time"])])
    place = index.get_indexer(pd.MultiIndex.from_arrays([labels["entity_id"], _micros(labels["prediction_time"])]))
    labels, place = labels[place >= 0], place[place >= 0]
    order = np.argsort(_micros(labels["available_at"]), kind="stable")
    return ModelPast(
        spec=spec,
        first=night_closing(first),
        last=night_closing(last),
        keys=keys,
        night=_nights(keys["prediction_time"]),
        cohort=_nights(frame_[decided]),
        revised=place[order].astype(np.int64),
        revised_at=_micros(labels["available_at"])[order],
        revised_to=labels["label"].to_numpy(dtype=np.float64)[order],
    )


def learn(rails: Rails, past: ModelPast, as_of: datetime) -> None:
    """What the judged batch of a night says: whether the model's spine and views are good, and which incidents are open
    after it."""
    night = night_closing(as_of)
    if night not in past.broken:
        past.broken[night] = data_incidents.of_model(rails, past.spec, night)
        read = past.spec.tables[:-1]
        for source in rails.settings.sources:
            record = rails.ledger.features_run(source, night)
            states = (*record.summary.unpublished, *record.summary.faults) if record else ()
            is_stopped = record is not None and record.status == "stopped" and source == past.spec.source
            if is_stopped or any(state.table in read for state in states):
                past.stopped.add(night)


# -- versions -----------------------------------------------------------------------------------------------


def _matured(model: str, as_of: datetime, snapshot: int) -> int:
    rails = worker.rails()
    return frame.matured(rails, find(rails.settings.models, model), as_of, snapshot)


def _train(model: str, as_of: datetime, snapshot: int, rows: str) -> Kept:
    """Keep the version that a training on this night gives, with its scores of all rows."""
    return _of_frame(_made, model, as_of, snapshot, rows)


def _of_frame(
    keep: Callable[[Rails, Spec, datetime, "frame.TrainingFrame", str, str], Kept],
    model: str,
    as_of: datetime,
    snapshot: int,
    rows: str,
) -> Kept:
    """What `keep` keeps, of a night's training frame and the digest of its inputs; why nothing, where there is none."""
    rails = worker.rails()
    spec = rails.ledger.bounded(find(rails.settings.models, model))
    if not frame.matured(rails, spec, as_of, snapshot):
        return Kept(reason="no label has matured")
    try:
        training_frame, inputs = _inputs(rails, spec, as_of, snapshot)
    except BadInput as error:
        return Kept(reason=str(error))
    return keep(rails, spec, as_of, training_frame, inputs, rows)


def _inputs(rails: Rails, spec: Spec, as_of: datetime, snapshot: int) -> tuple["frame.TrainingFrame", str]:
    """The training frame of a night, and the digest of what makes its version."""
    training_frame = frame.training(rails, spec, as_of, snapshot)
    return training_frame, training.inputs_digest(
        training_frame.digest, spec, rails.settings.seed, spec.estimator.tune.trials
    )


def _made(
    rails: Rails, spec: Spec, as_of: datetime, training_frame: "frame.TrainingFrame", inputs: str, rows: str
) -> Kept:
    folder = home(rails.settings) / "versions" / f"{LAYOUT}-{inputs[:32]}"
    if not folder.exists():
        row = rails.ledger.version_of_inputs(spec.name, inputs)
        if row is not None:
            files, facts = dict(registry.checked_files(rails, row)), row.facts
        else:
            report = leakage_gate.check_frame(rails, spec, training_frame, as_of, render=False, record=False)
            if report.critical_failures:
                return Kept(reason=f"the leakage gate stopped it: {report.critical_failures[0]}")
            try:
                order = candidate.Order(as_of, inputs, spec.estimator.tune.trials, "hindcast")
                tuned = _tuned(rails.settings, inputs)
                trained = candidate.make(rails.settings, spec, training_frame, order, draw=False, tuned=tuned)
            except (Untrainable, CheckFailed) as error:  # what ends a nightly training ends this one alike
                return Kept(reason=str(error))
            files, facts = dict(trained.files), trained.facts
        with whole_folder(folder) as fresh:
            for name in FILES:
                (fresh / name).write_bytes(files[name])
            digests = {name: hashlib.sha256(files[name]).hexdigest() for name in FILES}
            (fresh / "facts.json").write_text(json.dumps({"facts": facts.to_json(), "digests": digests}))
    scored = folder / f"past-{rows}.npz"
    if not scored.exists():
        files = _files(folder)
        scorer = Scorer.from_files(spec.name, 0, files)
        frame_ = _features(rails.settings, rows)
        scores = _usable(scorer.score(frame_), spec)
        told = scorer.target.named_scores(scores)
        counts = _counted(profile.read(json.loads(files["reference.json"])), frame_, told)
        with whole(scored) as part, part.open("wb") as file:
            np.savez(file, allow_pickle=False, scores=scores, **counts)
    return Kept(inputs=folder.name)


def _counted(
    reference: profile.Reference | None, rows: pd.DataFrame, scores: NDArray[Any]
) -> dict[str, NDArray[np.int64]]:
    """`nights`, and per column of the reference its counts of every night (nights, cells)."""
    nights, index = np.unique(_nights(rows["prediction_time"]), return_inverse=True)
    counts: dict[str, NDArray[np.int64]] = {"nights": nights}
    for place, column in enumerate(reference.columns if reference else ()):
        values = scores if column.name == profile.PREDICTION else rows.get(column.name)
        if column.kind in ("feature", "prediction") and values is not None:
            counts[f"column_{place}"] = profile.count_nights(column.cells, values, index.astype(np.intp), len(nights))
    return counts


def _line(model: str, as_of: datetime, snapshot: int, rows: str) -> Kept:
    """Keep the scores of all rows by the heavy model of a training on this night. As `_train` returns it."""
    return _of_frame(_sketched, model, as_of, snapshot, rows)


def _sketched(
    rails: Rails, spec: Spec, as_of: datetime, training_frame: "frame.TrainingFrame", inputs: str, rows: str
) -> Kept:
    if (home(rails.settings) / "versions" / f"{LAYOUT}-{inputs[:32]}").exists() or rails.ledger.version_of_inputs(
        spec.name, inputs
    ):
        return _made(rails, spec, as_of, training_frame, inputs, rows)  # all of it is there already
    folder = _lines(rails.settings, inputs)
    if not folder.exists():
        try:
            heavy, encoding, tuned = candidate.sketch(
                rails.settings, spec, as_of, training_frame, spec.estimator.tune.trials
            )
        except (Untrainable, CheckFailed) as error:
            return Kept(reason=str(error))
        with whole_folder(folder) as fresh:
            (fresh / "model.onnx").write_bytes(heavy)
            (fresh / "kept.json").write_text(
                json.dumps(
                    {
                        "encoding": encoding.to_json(),
                        "tuned": tuned.to_json(),
                        "digest": hashlib.sha256(heavy).hexdigest(),
                    }
                )
            )
    scored = folder / f"scores-{rows}.npy"
    if not scored.exists():
        sketch, heavy = json.loads((folder / "kept.json").read_text()), (folder / "model.onnx").read_bytes()
        if hashlib.sha256(heavy).hexdigest() != sketch["digest"]:
            raise CheckFailed(f"{folder / 'model.onnx'} is damaged; delete the folder and run the hindcast again.")
        matrix = Encoding.from_json(sketch["encoding"]).transform(_features(rails.settings, rows))
        scores = _usable(spec.target.within(answers(session(heavy), matrix, spec.target)), spec)
        with whole(scored) as part, part.open("wb") as file:
            np.save(file, scores)
    return Kept(line=folder.name)


def _lines(settings: Settings, inputs: str) -> Path:
    return home(settings) / "lines" / f"{LAYOUT}-{inputs[:32]}"


def _tuned(settings: Settings, inputs: str) -> Tuned | None:
    """What tuning the same frame has given before."""
    try:
        return Tuned.from_json(json.loads((_lines(settings, inputs) / "kept.json").read_text())["tuned"])
    except FileNotFoundError:
        return None


def _features(settings: Settings, rows: str) -> pd.DataFrame:
    return pd.read_parquet(home(settings) / "rows" / rows / "rows.parquet")


def _usable(values: Floats, spec: Spec) -> Floats:
    """NaN where a score is none: not finite, or out of bounds."""
    return spec.target.where(spec.target.usable(values), values)


def line(settings: Settings, kept: Kept, rows: str) -> Floats | None:
    """(n,) the scores that `_line` kept; None where there are none."""
    if kept.inputs:
        return version(settings, kept.inputs, rows).scores
    if not kept.line:
        return None
    scores: Floats = np.load(home(settings) / "lines" / kept.line / f"scores-{rows}.npy", allow_pickle=False)
    return scores


def _files(folder: Path) -> dict[str, bytes]:
    """A kept version's files. Raises CheckFailed when one is not what was written."""
    digests = json.loads((folder / "facts.json").read_text())["digests"]
    files = {name: (folder / name).read_bytes() for name in FILES}
    for name, content in files.items():
        if hashlib.sha256(content).hexdigest() != digests[name]:
            raise CheckFailed(f"{folder / name} is damaged; delete the folder and run the hindcast again.")
    return files


def version(settings: Settings, inputs: str, rows: str) -> PastVersion:
    """The version that `_train` kept, with what it makes of the rows kept under the name `rows`."""
    folder = home(settings) / "versions" / inputs
    reference = json.loads(_files(folder)["reference.json"])
    with np.load(folder / f"past-{rows}.npz", allow_pickle=False) as archive:
        remembered = profile.read(reference)
        counts = {
            column.name: archive[f"column_{place}"]
            for place, column in enumerate(remembered.columns if remembered else ())
            if f"column_{place}" in archive
        }
        return PastVersion(
            inputs=inputs,
            scores=archive["scores"],
            reference=reference,
            facts=VersionFacts.from_json(json.loads((folder / "facts.json").read_text())["facts"]),
            counted=profile.Nights(archive["nights"], counts),
        )


# -- plumbing -----------------------------------------------------------------------------------------------


def home(settings: Settings) -> Path:
    """Where a hindcast keeps what it has worked out."""
    return settings.home / "hindcast"


def _nights(times: "pd.Series[Any]") -> Ints:
    """The night (date ordinal) that scores a prediction of this time: the one that closes at the next midnight."""
    return _micros(times) // 86_400_000_000 + date(1970, 1, 1).toordinal() + 1


def _micro(instant: datetime) -> int:
    return (instant - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)


def _micros(times: "pd.Series[Any]") -> Ints:
    return pd.DatetimeIndex(times).as_unit("us").asi8.astype(np.int64)
