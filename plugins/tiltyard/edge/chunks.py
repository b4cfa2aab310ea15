"""How a stage of the portfolio goes through its models: many of them in one process, and each on its own.

`plan` asks the ledger what is due and divides it into chunks; what fits into one it does itself, since a task costs
seconds before it does anything. `chunk` does its models one after the other. A model that fails there is recorded with
its reason, and the next one is done. `left` asks the ledger which of the planned models are not done, whatever became
of the tasks, and announces the others. `alone` does each of those in a process of its own, again where Airflow says
so, and is red under the model's name when it fails again. `settle` gives a record to those that died without a word, so
that nobody waits for them. On a good night none of the last three runs.

A chunk is not retried: the model that has killed it would kill it again, and the others with it.
"""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from airflow.providers.standard.operators.empty import EmptyOperator
from airflow.sdk import task

from tiltyard import clock
from tiltyard.edge import due, limits, metering, nights, task_run
from tiltyard.edge.assets import announced_through, portfolio_asset
from tiltyard.edge.due import Lot
from tiltyard.errors import BadInput, CheckFailed, OutOfTime
from tiltyard.records import SUMMARIES, JsonObject
from tiltyard.spec import Spec
from tiltyard.stages import StageName

# What a stage stands on (the lake, pandas, MLflow) is imported inside: DAG files are parsed again and again.

if TYPE_CHECKING:
    from tiltyard.rails import Rails

log = logging.getLogger(__name__)

PLANNED = "planned"
"""Under this key `plan` says what is to be done, before it does any of it."""

Work = Callable[["Rails", Spec, Sequence[datetime]], object]
"""What a stage does for one model on some nights, the oldest first."""
Announce = Callable[["Rails", Sequence[Spec], Lot], None]
"""What is told to other DAGs of models and nights that are done. To be told again changes nothing."""


@dataclass(frozen=True)
class Chunks:
    """A stage of the portfolio as the tasks of one DAG."""

    stage: StageName
    """The stage."""
    specs: Sequence[Spec]
    """The active models."""
    work: Work
    """What is done for one of them."""
    announce: Announce
    """What is told of those that are done."""

    def lay_out(self) -> None:
        """The tasks, inside a DAG. See the module."""
        outlet = announced_through(self.stage)

        @task(outlets=[outlet])
        def plan() -> list[JsonObject]:
            return self.plan()

        @task(retries=0, map_index_template="{{ label | default(task.op_kwargs['models']['label']) }}")
        def chunk(models: JsonObject) -> JsonObject:
            return self.chunk(models)

        @task(trigger_rule="all_done", outlets=[outlet])
        def left() -> list[JsonObject]:
            return self.left()

        @task(outlets=[outlet], map_index_template="{{ task.op_kwargs['model']['label'] }}")
        def alone(model: JsonObject) -> None:
            self.alone(model)

        @task(trigger_rule="all_done", outlets=[announced_through("drift")])
        def settle() -> list[str]:
            return self.settle()

        planned, rest = task_run.linked(plan()), left()
        worked = chunk.expand(models=planned)
        again = alone.expand(model=rest)
        planned >> worked >> rest >> again >> settle()
        again >> EmptyOperator(task_id="all_done")  # so that the run is red where a model is

    def plan(self) -> list[JsonObject]:
        """The chunks of this run. What is one chunk is done at once, by the first attempt: a second one may have been
        needed because the first was killed by what it did."""
        with task_run.working() as rails:
            planned = self._lot(rails)
            if not planned.models:
                log.info("Nothing waits: every night that the stage before has finished is done.")
                task_run.end_here("chunk", "left", "alone", "settle", "all_done")
            task_run.hand_on(PLANNED, planned.to_json())
            parts = due.divided(planned, rails.settings.chunk_models)
            if len(parts) > 1 or not task_run.is_first_attempt():
                return [_labelled(part) for part in parts]
            task_run.show_model(min(planned.models))  # where it is one; its work may show a page of its own
            self._do(rails, planned)
            if self._left(rails, planned).models:
                return []
            self.announce(rails, self.specs, planned)
        return task_run.end_here("chunk", "left", "alone", "settle", "all_done")

    def chunk(self, body: JsonObject) -> JsonObject:
        """Do the models of a chunk. Model → why it failed, of those that did; nothing is raised for them."""
        part = Lot.from_json(body)
        with task_run.working() as rails:
            failed = self._do(rails, part)
        task_run.label(part.label(failed))
        return {"models": len(part.models), "failed": dict(failed)}

    def left(self) -> list[JsonObject]:
        """The planned models that are not done, each with its nights; the others are announced."""
        with task_run.working() as rails:
            planned = self._planned(rails)
            rest = self._left(rails, planned)
            done = planned.part(planned.models.keys() - rest.models.keys())
            if done.models:
                self.announce(rails, self.specs, done)
            if rest.models:
                return [_labelled(rest.part([name])) for name in rest.models]
        return task_run.end_here("alone", "settle", "all_done")

    def alone(self, body: JsonObject) -> None:
        """Do one model, and announce it. Raises what it raises."""
        own = Lot.from_json(body)
        with task_run.working() as rails:
            [spec] = [spec for spec in self.specs if spec.name in own.models] or [_gone(own)]
            self._work(rails, spec, own)
            self.announce(rails, self.specs, own)

    def settle(self) -> list[str]:
        """Record the planned nights of which nobody has said anything as failed, and let the governor look at what
        there is. The models that are not done."""
        with task_run.working() as rails:
            planned = self._planned(rails)
            rest = self._left(rails, planned)
            reason = "Its process ended without a word: it was killed, or did not listen when its time was over."
            self._record_failed(rails, due.unheard(rails, self.stage, planned.part(rest.models)), reason)
            task_run.announce_through(announced_through("drift"), portfolio_asset("finding"), rest.nights)
            return sorted(rest.models)

    def _do(self, rails: "Rails", part: Lot) -> dict[str, str]:
        """Do models one after the other. Model → why it failed, of those that did."""
        failed: dict[str, str] = {}
        of_name = {spec.name: spec for spec in self.specs}
        for name in part.models:
            try:
                self._work(rails, of_name[name], part)
            except Exception as error:  # whatever it is, it is this model's; the ledger knows that it is not done
                log.exception("%s of %s failed; the others go on.", self.stage, name)
                failed[name] = f"{type(error).__name__}: {error}"[:2000]
        if len(part.models) > 1:  # each has shown a page of its own
            task_run.show_portfolio()
        return failed

    def _work(self, rails: "Rails", spec: Spec, own: Lot) -> None:
        log.info("%s of %s: %s", self.stage, spec.name, ", ".join(map(str, own.models[spec.name])))
        days = own.models[spec.name]
        try:
            with metering.meter.span(spec.name, days), limits.within(rails, self.stage, spec):
                self.work(rails, spec, [clock.midnight(day) for day in days])
        except OutOfTime as error:  # what was interrupted may have said something else, or nothing
            rest = self._left(rails, own.part([spec.name]))
            self._record_failed(rails, rest, str(error))
            raise

    def _record_failed(self, rails: "Rails", part: Lot, reason: str) -> None:
        for name, days in part.models.items():
            for day in days:
                body: JsonObject = {"model": name, "night": str(day), "reason": reason}
                rails.ledger.record_bad_end(name, day, "failed", SUMMARIES[self.stage].from_json(body))

    def _lot(self, rails: "Rails") -> Lot:
        names = task_run.chosen_models()
        if unknown := sorted(set(names) - {spec.name for spec in self.specs}):
            there = ", ".join(spec.name for spec in self.specs) or "none"
            raise BadInput(f"There is no active model '{unknown[0]}'; the models are: {there}.")
        rails.ledger.require_unplayed(names)
        chosen = nights.unplayed(rails, [spec for spec in self.specs if not names or spec.name in names])
        return due.lot(rails, self.stage, chosen, task_run.chosen_night(), named=bool(names))

    def _planned(self, rails: "Rails") -> Lot:
        """What `plan` said; what is due now, where it died before it said anything."""
        body = task_run.handed_on("plan", PLANNED)
        return Lot.from_json(body) if body else self._lot(rails)

    def _left(self, rails: "Rails", planned: Lot) -> Lot:
        rest = due.left(rails, self.stage, planned)
        if self.stage != "promotion":
            return rest
        handed_over = due.proposals(rails, self.specs, planned).models
        return rest.part(rest.models.keys() - handed_over.keys())


def _labelled(part: Lot) -> JsonObject:
    return {**part.to_json(), "label": part.label()}


def _gone(own: Lot) -> Any:
    raise CheckFailed(f"{own.label()} is no active model any more, so nothing is done for it.")
