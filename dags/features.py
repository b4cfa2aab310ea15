"""Bring last night's data of one source in, build what is made of it, judge the batch, and publish it table by table.

**What it does.** One DAG per source, by the schedule in its contract. `ingest` puts the checkout's specs, suites and
dbt files in force, fetches what is new at the places that the contract names, lands what became available until the
night's `as_of`, and waits for a source that has not delivered, or whose place is away, until its `due_by`; `transform`
builds staging, spines, feature views and labels with dbt; `checks` runs the suites; `publish` puts every table that is
good in service, with the store of online features, and tells the shadow stage. A table of several sources is settled by
the last of them. Where a model is answered by the hour, a run between two midnights does an hour, or the night before.

**What to do when it fails.** No other source waits, and no model that does not read one of this source's tables.

- *checks* is red: it names the tables that dbt could not build, that a critical check holds, or that are late. It is
  not retried. They, and what is made of them, stay in service as of their last good night; *publish* runs for all
  others. A model with a feature view that is not good is scored on the view's last good rows; one whose spine is not
  catches up on the night on which it is good again; neither is retrained. The button *Report* on the task shows which
  check, which rows and what to do. Mend the source, the check or the SQL, then clear the run from *ingest*: every step
  may run twice. Or let the next night do it.
- *checks* is red and names a file that is *refused* as it lies in the checkout: its last accepted text is in force.
  Mend the file (`tiltyard release --dry-run` says whether it would be accepted); the next night takes it.
- *transform* or *ingest* is red: the log says why. dbt does not run at all, a file cannot be read, the source hangs for
  longer than `TILTYARD_SOURCE_TIMEOUT_S`. *publish* has then told that nothing of the source is new. Mend it, clear the
  task. A file whose schema is wrong does not fail the run; it waits in quarantine with its reason.
- *ingest* is up for reschedule: the source has delivered nothing for the night yet, or the place that it is fetched
  from does not answer, and it is looked for every ten minutes. *checks* is red where a table *could not be fetched* in
  time: the next night brings what was missed; clear the run from *ingest* to have it sooner.
- *publish* is green and says `online: unavailable`: the store of online features does not answer. The night goes on
  without it, and requests get the features of the last night until `max_feature_age` refuses them. Do what it says and
  run `tiltyard online`; the next night catches up, too. `online: rebuilt`: the store was damaged and is made anew.
- Nights were missed while Airflow was down: start this DAG by hand once per night.

**Manual parameters.** `as_of`: the night to do (again), like `2016-05-02`, with what there is. Empty: the one after
the newest that was done. Refused: a night 30 days after all deliveries, and a parameter without a meaning, like `asof`.
"""

from datetime import timedelta
from typing import Any

from airflow.sdk import DAG, task

from tiltyard.edge import orchestration as on
from tiltyard.records import JsonObject

settings = on.in_force()
limit = timedelta(seconds=settings.source_timeout_s)


def features(source: str) -> None:
    @task.sensor(
        mode="reschedule", poke_interval=600, timeout=timedelta(days=7).total_seconds(), execution_timeout=limit
    )
    def ingest() -> Any:
        with on.accepting() as rails:
            return on.looking(on.land(rails, source, on.begin(rails, source)))

    @task
    def transform() -> JsonObject:
        with on.working() as rails:
            return on.transform(rails, source, on.end_of_run(rails, source))

    @task(execution_timeout=limit)
    def checks(build: JsonObject) -> JsonObject:
        with on.working() as rails:
            as_of = on.end_of_run(rails, source)
            on.show_checks(source, as_of, settings)
            return on.check(rails, source, as_of, build).to_json()

    @task(outlets=[on.settled_assets()], trigger_rule="all_done", execution_timeout=limit)
    def publish() -> JsonObject:
        with on.working() as rails:
            return on.publish(rails, source, on.end_of_run(rails, source))

    built = transform()
    judged = on.linked(checks(built))  # type: ignore[arg-type]  # the task gets the value of what Airflow is given here
    ingest() >> built >> judged >> publish()  # what is good, though a check of something else is red
    judged >> on.Settled(task_id="all_published")  # so that the run is red where a table is not good


for source in settings.sources:
    with DAG(**on.arguments("features", __doc__, source=source), schedule=on.timetable(settings, source)):
        features(source)  # not by @dag, which hands a placeholder on in place of the name
