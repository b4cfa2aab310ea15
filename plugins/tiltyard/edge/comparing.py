"""The versions of a model, each in a row, and two or more of them side by side. From the ledger alone."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import date

from tiltyard.judge.night_figures import NightFigures
from tiltyard.rails import Rails
from tiltyard.records import Interval, Measured, MeasuredVersion, Record, TrainingSummary, Version
from tiltyard.records.figures import Figured
from tiltyard.spec import Spec
from tiltyard.target import MEASURES

SHOWN = 50
"""So many versions, the newest, are listed."""
BESIDE = 6
"""So many are held against each other at most."""
NOTHING = "–"


@dataclass(frozen=True, kw_only=True)
class VersionRow(Record):
    """A version at a glance."""

    version: int
    """Its number."""
    night: date
    """The night as of which it was trained."""
    role: str | None
    """What it does now: champion, previous, challenger or first; None for nothing."""
    reasons: tuple[str, ...]
    """Why it was trained, a sentence each."""
    requested_by: str
    """Who asked for it."""
    rows: int | None
    """Number of rows of its frame; None where it was not kept."""
    features: int
    """Number of its features."""
    loss: Interval | None
    """Its measure on held-out rows of the frame; None where it was not kept."""
    size_mb: float | None
    """Size of its files, in megabytes."""
    latency_ms: float | None
    """99th percentile for one row, in milliseconds."""
    run_id: str
    """MLflow's run."""
    evidence: str | None
    """The newest page with the evidence on it, below the reports; None where none was drawn."""


@dataclass(frozen=True, kw_only=True)
class ComparedLine(Record):
    """A fact of every version that is compared."""

    group: str
    """What it is one of."""
    name: str
    """What it is."""
    cells: tuple[str, ...]
    """What it is of each version, in words."""

    @property
    def differs(self) -> bool:
        """Whether the versions differ in it."""
        return len(set(self.cells)) > 1


@dataclass(frozen=True, kw_only=True)
class Comparison(Record):
    """Versions side by side."""

    versions: tuple[int, ...]
    """Their numbers."""
    missing: tuple[int, ...]
    """The numbers that were asked for and that are none."""
    figures_night: date | None
    """The night that the night's figures are of; None where none is kept."""
    lines: tuple[ComparedLine, ...]
    """Line by line, those of a group together."""

    @property
    def groups(self) -> dict[str, list[ComparedLine]]:
        """Group → its lines, in their order."""
        groups: dict[str, list[ComparedLine]] = {}
        for line in self.lines:
            groups.setdefault(line.group, []).append(line)
        return groups


def rows(rails: Rails, spec: Spec, night: date) -> tuple[VersionRow, ...]:
    """The model's versions, the newest first. `night`: whose roles they have."""
    roles = rails.ledger.roles(spec.name, night).scored
    pages = rails.ledger.chronicle.evidence_pages(spec.name)
    return tuple(
        VersionRow(
            version=version.version,
            night=version.night,
            role=roles.get(version.version),
            reasons=version.facts.reasons,
            requested_by=version.requested_by,
            rows=version.facts.rows,
            features=len(version.facts.features),
            loss=version.facts.metrics.figure(spec.target.measure) if version.facts.metrics else None,
            size_mb=version.facts.size_mb,
            latency_ms=version.facts.latency_ms,
            run_id=version.run_id,
            evidence=pages.get(version.version),
        )
        for version in reversed(rails.ledger.versions(spec.name)[-SHOWN:])
    )


def numbers(text: str) -> tuple[int, ...]:
    """The numbers of an address like `3,4`, each once, BESIDE of them at most; what is none is passed over."""
    found = (int(part) for part in text.replace(" ", ",").split(",") if part.isdecimal() and len(part) < 7)
    return tuple(dict.fromkeys(found))[:BESIDE]


def compare(rails: Rails, spec: Spec, asked: Sequence[int], night: date) -> Comparison:
    """These versions side by side, with the figures of the newest night up to `night` that has any."""
    there = {version.version: version for version in rails.ledger.versions(spec.name)}
    chosen = [there[number] for number in asked if number in there]
    kept = rails.ledger.chronicle.kept(NightFigures, "model", spec.name, night)
    figures = kept.body if kept else NightFigures()
    pages = rails.ledger.chronicle.evidence_pages(spec.name)
    lines = [*_training(chosen), *_measured(spec, chosen), *_of_night(spec, chosen, figures)]
    lines += [*_parameters(chosen), *_features(chosen, figures), *_files(rails, chosen, pages)]
    return Comparison(
        versions=tuple(version.version for version in chosen),
        missing=tuple(number for number in asked if number not in there),
        figures_night=kept.night if kept else None,
        lines=tuple(line for line in lines if any(cell != NOTHING for cell in line.cells)),
    )


def _line(group: str, name: str, versions: Sequence[Version], told: Callable[[Version], object]) -> ComparedLine:
    cells = (told(version) for version in versions)
    return ComparedLine(group=group, name=name, cells=tuple(_words(cell) for cell in cells))


def _words(cell: object) -> str:
    if cell is None or cell == "" or cell == ():
        return NOTHING
    if isinstance(cell, float):
        return f"{cell:.4g}"
    if isinstance(cell, int) and not isinstance(cell, bool):
        return f"{cell:,}"
    return "; ".join(map(str, cell)) if isinstance(cell, tuple) else str(cell)


def _training(versions: Sequence[Version]) -> Iterator[ComparedLine]:
    facts: dict[str, Callable[[Version], object]] = {
        "night": lambda version: version.night,
        "asked for by": lambda version: version.requested_by,
        "reason": lambda version: version.facts.reasons,
        "rows": lambda version: version.facts.rows,
        "predictions from": lambda version: (version.facts.start or "")[:10],
        "to, not included": lambda version: (version.facts.end or "")[:10],
        "labels beyond the bounds": lambda version: version.facts.labels_outside_bounds,
        "trials": lambda version: version.facts.trials,
        "seed": lambda version: str(version.facts.seed),
        "fitted on": lambda version: version.facts.device,
        "commit": lambda version: (
            (version.facts.git_commit or "")[:12] + (" (changed)" if version.facts.git_dirty else "")
        ),
        "spec": lambda version: (version.facts.spec or "")[:12],
        "frame": lambda version: (version.facts.frame or "")[:12],
        "snapshot": lambda version: str(version.facts.snapshot),
    }
    for name, told in facts.items():
        yield _line("training", name, versions, told)


def _measured(spec: Spec, versions: Sequence[Version]) -> Iterator[ComparedLine]:
    """On held-out rows of each version's own frame: the rows differ, so that only the order of size can be compared."""
    measure, target = spec.target.measure, MEASURES[spec.target.measure]
    names = {measure: target.figure, **target.columns}

    def told(measured: Measured | None, name: str) -> str:
        figure = measured.figure(name) if measured else None
        return NOTHING if figure is None or figure.value is None else _interval(figure.value, figure.low, figure.high)

    def light(version: Version) -> str:
        return told(version.facts.metrics.light if version.facts.metrics else None, measure)

    group = "at training, on held-out rows of its own frame"
    for name, words in names.items():
        yield _line(group, words, versions, lambda version, name=name: told(version.facts.metrics, name))  # type: ignore[misc]
    yield _line(group, f"{target.figure} of the light twin", versions, light)
    yield _line(group, "held-out rows", versions, lambda version: (own := version.facts.metrics) and own.rows)


def _of_night(spec: Spec, versions: Sequence[Version], figures: NightFigures) -> Iterator[ComparedLine]:
    """On the same matured rows."""
    measure, target = spec.target.measure, MEASURES[spec.target.measure]
    group = "on matured truth, all on the same rows"

    def told(measured: Figured | None, name: str) -> str:
        value = measured.figure(name) if measured else None
        if value is None or measured is None:
            return NOTHING
        return _interval(value, measured.figure(f"{name}_low"), measured.figure(f"{name}_high"))

    def of_night(version: Version) -> MeasuredVersion | None:
        return figures.metrics.get(str(version.version))

    yield _line(group, "role", versions, lambda version: (own := of_night(version)) and own.role)
    yield _line(group, "matured rows", versions, lambda version: (own := of_night(version)) and own.matured)
    for name, words in {measure: target.figure, **target.columns}.items():
        yield _line(group, words, versions, lambda version, name=name: told(of_night(version), name))  # type: ignore[misc]
    yield _line(group, "estimated, without truth", versions, lambda version: _estimate(figures, version.version))
    slices = sorted({name for version in versions for name in figures.slices.get(str(version.version), {})})
    for part in slices:
        yield _line(f"{target.figure} by slice", part, versions,
                    lambda version, part=part: told(figures.slices.get(str(version.version), {}).get(part), measure))  # type: ignore[misc]  # fmt: skip


def _estimate(figures: NightFigures, version: int) -> str:
    estimate = figures.estimated.get(str(version))
    if estimate is None or estimate.brier is None:
        return NOTHING
    return _interval(estimate.brier, estimate.brier_low, estimate.brier_high)


def _parameters(versions: Sequence[Version]) -> Iterator[ComparedLine]:
    for name in sorted({name for version in versions for name in version.facts.params}):
        yield _line("parameters", name, versions, lambda version, name=name: version.facts.params.get(name))  # type: ignore[misc]


def _features(versions: Sequence[Version], figures: NightFigures) -> Iterator[ComparedLine]:
    """Which features each has, and how far they are filled: at training, and on the night."""
    names = dict.fromkeys(name for version in versions for name in version.facts.features)
    yield _line("features", "number", versions, lambda version: len(version.facts.features))

    def told(version: Version, name: str) -> str:
        if name not in version.facts.features:
            return "not a feature"
        filled = next((feature for feature in version.facts.filled if feature.feature == name), None)
        if filled is None:
            return "a feature"
        now = figures.filled.get(version.version, {}).get(name)
        dead = ", one value at most" if filled.is_dead else ""
        return f"{filled.training:.1%} filled{dead}" + (f", now {now:.1%}" if now is not None else "")

    for name in names:
        yield _line("features", name, versions, lambda version, name=name: told(version, name))  # type: ignore[misc]


def _files(rails: Rails, versions: Sequence[Version], pages: dict[int, str]) -> Iterator[ComparedLine]:
    group = "files and proof"
    yield _line(group, "size, MB", versions, lambda version: version.facts.size_mb)
    yield _line(group, "p99 of a row, ms", versions, lambda version: version.facts.latency_ms)
    yield _line(group, "ONNX differs at most by", versions,
                lambda version: version.facts.parity.heavy if version.facts.parity else None)  # fmt: skip
    yield _line(group, "millisecond test", versions, lambda version: _replay(rails, version))
    yield _line(group, "MLflow run", versions, lambda version: version.run_id)
    yield _line(group, "evidence page", versions, lambda version: pages.get(version.version))


def _replay(rails: Rails, version: Version) -> str | None:
    run = rails.ledger.stage_run(TrainingSummary, version.model, version.night)
    replay = run.summary.replay if run and run.summary.version == version.version else None
    return f"{replay.verdict}, {replay.tested:,} of {replay.rows:,} predictions can acquit" if replay else None


def _interval(value: float, low: float | None, high: float | None) -> str:
    return f"{value:.4f}" + (f" ({low:.4f} to {high:.4f})" if low is not None and high is not None else "")
