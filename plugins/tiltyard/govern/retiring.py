"""The retire list: of every model whose errors have a price, whether it is worth what it costs.

Each night's maintenance works it out and puts it down in the ledger, for the page; nobody's night waits for it, and
nothing follows from it by itself. It reads the truth of half a year at the least and a year at the most, from a first
of January or July on: a beginning that moved with the nights would make an interval that holds on no night.
"""

import logging
from collections.abc import Callable, Sequence
from datetime import date, datetime, timedelta
from pathlib import Path

import numpy as np

from tiltyard.chronicle import lately
from tiltyard.clock import midnight, night_closing
from tiltyard.govern import bills
from tiltyard.govern import worth as worth_module
from tiltyard.govern.worth import Running
from tiltyard.portfolio_rules import Prices, load_portfolio
from tiltyard.prepare import truth
from tiltyard.rails import Rails
from tiltyard.records import ADVICE, Cost, Gain, ModelWorth, Stored
from tiltyard.spec import Spec
from tiltyard.words import counted

log = logging.getLogger(__name__)

SECONDS = 3600
Step = Callable[[str, float | None], None]


def look(
    rails: Rails, specs: Sequence[Spec], as_of: datetime | None = None, step: Step = lambda *_: None
) -> list[ModelWorth]:
    """What these models are worth as of a night, by default the newest that each has scored. One that cannot be told
    does not keep the others from it: its reason says why."""
    prices = load_portfolio(rails.settings.models).prices
    scored = rails.ledger.newest_nights("shadow", [spec.name for spec in specs])
    last = rails.ledger.accounts.newest() or max(scored.values(), default=date.min + timedelta(days=bills.LATELY))
    first = lately(last, bills.LATELY)
    costs, nights = rails.ledger.accounts.costs(first, last), rails.ledger.accounts.nights(first, last)
    stored = {entry.name: entry.bytes for entry in rails.ledger.accounts.stored()}
    found = []
    for place, spec in enumerate(specs):
        step(f"worth of {spec.name}", place / len(specs))
        night = night_closing(as_of) if as_of else scored.get(spec.name)
        if night is None:
            none_yet = f"no night yet; tiltyard hindcast --model {spec.name} plays past ones"
            found.append(ModelWorth(model=spec.name, advice="open", reason=none_yet))
            continue
        own = [cost for cost in costs if cost.name == spec.name and cost.stage != "features"]
        try:
            running = _running(rails, spec, own, stored.get(spec.name, 0), nights, (first, last), prices)
            found.append(of_model(rails, spec, midnight(night), running, prices, is_measured=bool(own)))
        except Exception as error:  # whatever it is, it is this model's
            log.exception("What %s is worth cannot be told.", spec.name)
            why = f"it could not be worked out: {type(error).__name__}: {error}"[:300]
            found.append(ModelWorth(model=spec.name, advice="open", reason=why, night=night))
    return found


def of_model(
    rails: Rails, spec: Spec, as_of: datetime, running: Running, prices: Prices | None, *, is_measured: bool
) -> ModelWorth:
    """What one model is worth as of a night."""
    night = night_closing(as_of)
    if not spec.gate.is_priced:
        reason = f"no error has a price; write {spec.target.priced_by} in models/{spec.name}/spec.yaml"
        return ModelWorth(model=spec.name, advice="unpriced", reason=reason, night=night)
    spec = rails.ledger.bounded(spec)
    rows = truth.answered(rails, spec, as_of, beginning(night))
    earned = worth_module.earned(
        spec,
        rows["night"].to_numpy(dtype=np.int64),
        spec.target.scores(rows["score"]),
        spec.target.scores(rows["light"]),
        rows["label"].to_numpy(dtype=np.float64),
    )
    said = worth_module.judge(earned, running, spec.gate.alpha)
    currency = prices.currency if prices else None
    unpriced = "; what it costs to run is not priced (prices in models/portfolio.yaml)" if prices is None else ""
    unmeasured = "; what it costs to run was not measured yet" if prices and not is_measured else ""
    return ModelWorth(
        model=spec.name,
        advice=said.advice,
        reason=_reason(said, currency) + unpriced + unmeasured,
        night=night,
        said_since=said.since,
        first=date.fromordinal(int(rows["night"].iloc[0])) if len(rows) else None,
        last=date.fromordinal(int(rows["night"].iloc[-1])) if len(rows) else None,
        alpha=spec.gate.alpha,
        currency=currency,
        over_default=said.over_default,
        light_over_default=said.light_over_default,
        over_light=said.over_light,
    )


def beginning(night: date) -> date:
    """The first cohort that counts: the first of January or July that lies half a year back or more."""
    halves = [date(year, month, 1) for year in (night.year - 1, night.year) for month in (1, 7)]
    return max(half for half in halves if half <= night - timedelta(days=181))


def measure_stored(rails: Rails, specs: Sequence[Spec]) -> list[Stored]:
    """Put down what lies in this home for each model and source: a model's frames, artefacts and reports, a source's
    deliveries; with an empty name the lake's files and everything else. What lies in a bucket is not counted."""
    settings = rails.settings
    own: dict[str, int] = {}
    for spec in specs:
        frames = {version.facts.frame for version in rails.ledger.versions(spec.name) if version.facts.frame}
        paths = [settings.frames / f"{digest}.parquet" for digest in frames]
        paths += [Path(settings.mlflow_path) / spec.name, *settings.reports.glob(f"*/{spec.name}")]
        own[spec.name] = sum(_size(path) for path in paths)
    for source in settings.sources:
        own[source] = own.get(source, 0) + _size(settings.landing / source) + _size(settings.quarantine / source)
    own[""] = max(_size(settings.home) - sum(own.values()), 0)
    found = [Stored(name=name, bytes=size) for name, size in sorted(own.items())]
    rails.ledger.accounts.set_stored(found)
    return found


def _size(path: Path) -> int:
    """Bytes of a file, or of all files below a folder; 0 where there is none."""
    if path.is_file():
        return path.stat().st_size
    sizes = 0
    for file in path.rglob("*"):
        try:
            sizes += file.lstat().st_size if file.is_file() else 0
        except OSError:  # it has gone meanwhile, or is somebody else's
            continue
    return sizes


def _running(
    rails: Rails,
    spec: Spec,
    costs: Sequence[Cost],
    stored: int,
    nights: int,
    between: tuple[date, date],
    prices: Prices | None,
) -> Running:
    """What a night of a model costs, and would cost with its light twin alone: without tuning and fitting the heavy
    model. All else stays: the twin reads the same rows, through the same gates."""
    if prices is None or not nights:
        return Running()
    whole = bills.a_night(costs, stored, nights, prices)
    fitted = sum(
        version.facts.fit_cpu_s.get("heavy", 0.0)
        for version in rails.ledger.versions(spec.name)
        if between[0] <= version.night <= between[1]
    )
    saved = fitted / SECONDS * prices.cpu_hour / nights
    return Running(whole=whole, light=max(whole - saved, 0.0))


def _reason(said: worth_module.Opinion, currency: str | None) -> str:
    money = currency or "units of cost"

    def told(gain: Gain | None, over: str) -> str:
        if gain is None:
            return f"nothing is known of it over {over}"
        return (
            f"{gain.mean:+.4g} {money} a row over {over} ({gain.low:+.4g} to {gain.high:+.4g}) on "
            f"{counted(gain.rows, 'row')}, for {gain.cost:.4g} more to run"
        )

    parts = [ADVICE[said.advice], told(said.over_default, "the safe default"), told(said.over_light, "its light twin")]
    return "; ".join(parts)
