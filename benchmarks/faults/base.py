"""The home that every fault is put into: eight sources built, and forty models that have been in service for a while.

Each model has three versions, trained on three nights; the first was promoted by decree, then the second, so that there
are a champion, a previous one and a challenger, all on the same rows. Those of the first source are trained, the other
sources' models get copies. What a night does for them is done for the nights before by the same stages.
"""

import shutil
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from dataclasses import replace
from datetime import date, datetime, timedelta
from functools import partial
from multiprocessing import get_context
from pathlib import Path

from faults import business
from tiltyard import clock, postgres
from tiltyard import rails as rails_module
from tiltyard.answered import fallback_audit
from tiltyard.errors import TiltyardError
from tiltyard.govern import drift, grants
from tiltyard.judge import promotion, shadow
from tiltyard.online import fill
from tiltyard.prepare import features, releasing
from tiltyard.rails import Rails
from tiltyard.records import Promotion
from tiltyard.settings import Settings
from tiltyard.spec import find, portfolio
from tiltyard.train import registry, training

NIGHT = timedelta(days=1)
LAST = clock.parse_as_of("2025-02-25")
"""The last night of the base. The fault comes on the next one."""
VERSIONS = 3
PAST = 6
"""Nights that the models were in service for, the last of the base among them."""
SAYS = Callable[[str], None]


def make(at: Settings, jobs: int, say: SAYS) -> None:
    """Play the base home, and stop its PostgreSQL. What an earlier attempt has done is not done again."""
    begun = time.perf_counter()
    if not at.home.exists():
        business.write(at)
    with rails_module.opened(at) as checkout:
        rails, accepted = releasing.in_force(checkout, clock.now(), by="benchmarks")
        if accepted.refused:
            raise SystemExit(f"The project is refused: {accepted.refused[0]}")
        if rails.ledger.publication() is None:
            night = features.build_night(rails, LAST, render=False)
            if night.unpublished:
                raise SystemExit(f"A table of the base is not good: {night.unpublished[0]}")
        say(f"features of {len(business.SOURCES)} sources are published ({time.perf_counter() - begun:.0f} s)")
        specs = portfolio(rails.settings)
        first, *others = business.SOURCES
        nights = [LAST - number * NIGHT for number in reversed(range(PAST))]
        with ProcessPoolExecutor(jobs, get_context("spawn")) as pool:
            list(pool.map(partial(_past, rails.settings, nights), business.models_of(first)))
            say(f"the models of {first} have a past ({time.perf_counter() - begun:.0f} s)")
            for source in others:
                for kind in business.VIEWS:
                    _copy(rails, business.model(first, kind), business.model(source, kind))
            rest = [name for source in others for name in business.models_of(source)]
            list(pool.map(partial(_past, rails.settings, nights), rest, chunksize=5))
        fill.fill_night(rails, LAST)
        rails.ledger.accept_as_found("benchmark", "champions by decree, whose decisions would take weeks")
        for as_of in nights:
            grants.govern_night(rails, as_of, specs)
        say(f"{len(specs)} models have a past ({time.perf_counter() - begun:.0f} s)")
    postgres.stop(at)


def _past(at: Settings, nights: list[datetime], model: str) -> None:
    """The past of a model: three trainings, two promotions, and what a night does of itself. What was copied to it, or
    done before, is not done again."""
    with rails_module.opened(at) as rails:
        spec = find(at.models, model)
        done = rails.ledger.finished("fallback_audit", model)
        copied = {version.version for version in rails.ledger.versions(model)}
        for number, as_of in enumerate(nights, 1):
            if as_of.date() not in done:
                shadow.shadow_night(rails, spec, as_of)
                with suppress(TiltyardError):
                    promotion.judge_night(rails, spec, as_of)
                drift.measure_night(rails, spec, as_of)
                fallback_audit.audit_night(rails, spec, as_of)
            if number <= VERSIONS and number not in copied:
                made = training.train(rails, spec, as_of, requested_by="benchmark").version
                if made != number:
                    raise SystemExit(f"{model}: the training of {as_of:%Y-%m-%d} made version {made}.")
            if number < VERSIONS:
                _promote(rails, spec.name, number, as_of.date())


def _copy(rails: Rails, first: str, other: str) -> None:
    """Give a model the versions of one that reads the same views of another source: files, registry and ledger."""
    if rails.ledger.versions(other):
        return
    home, store = rails.settings.home, Path(rails.settings.mlflow_path)
    shutil.copytree(store / first, store / other, dirs_exist_ok=True)
    shutil.copytree(home / "cache" / first, home / "cache" / other, dirs_exist_ok=True)
    flow = registry.client(rails.settings)
    flow.create_registered_model(other)
    numbers = {int(entry.version): entry for entry in flow.search_model_versions(f"name='{first}'")}
    for version in rails.ledger.versions(first):
        entry = numbers[version.version]
        flow.create_model_version(other, entry.source, run_id=entry.run_id)
        facts = replace(version.facts, artifacts=version.facts.artifacts.replace(f"{first}/", f"{other}/", 1))
        rails.ledger.add_version(replace(version, model=other, facts=facts))


def _promote(rails: Rails, model: str, version: int, night: date) -> None:
    """A champion by decree: its truth would take weeks to come."""
    rails.ledger.claim_promotion(
        Promotion(
            model=model, version=version, night=night, replaced=version - 1 or None, requested_by="benchmark",
            approved_by=None, approval={"needed": False},
        )
    )  # fmt: skip
