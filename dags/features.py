"""Bring last night's data in, build the features of every model, judge the batch, and publish it table by table.

**What it does.** `ingest` lands what became available until the night's `as_of`; `transform` builds staging,
spines, feature views and labels with dbt; `checks` runs the freshness, quality and leakage suites; `publish` puts
every table that is good in service, brings the store of online features up to it, and tells every model's shadow DAG.

**What to do when it fails.**

- *checks* is red: it names the tables that dbt could not build or that a critical check holds. It is not retried.
  They, and what is made of them, stay in service as of their last good night; *publish* runs for all others, and no
  model waits that does not read one of them. A model with a held feature view is scored on the view's last good rows;
  one with a held spine catches up on the night on which it is good again; neither is retrained. The button *Report* on
  the task shows which check and which rows, `tiltyard status` what stands since when. Mend the source, the check or the
  SQL, then clear the run from *ingest*: every step may run twice. Or let the next night do it.
- *checks* is red and *publish* is skipped: no table is good, so that there was nothing to publish.
- *transform* is red: dbt does not run at all, and the log says why. Mend the project, clear *transform*.
- *ingest* is red: the log names the file. A file whose schema is wrong does not fail the run; it waits in
  quarantine with its reason.
- *publish* is green and says `online: unavailable`: the store of online features does not answer. The night goes on
  without it, and requests get the features of the last night until `max_feature_age` refuses them. Do what it says and
  run `tiltyard online`; the next night catches up, too. `online: rebuilt`: the store was damaged, and is made anew.
- Nights were missed while Airflow was down: start this DAG by hand once per night, oldest first.

**Manual parameters.** `as_of`: the night to do (again), like `2016-05-02`. Empty: the run's own interval.
"""

from airflow.sdk import dag, task

from tiltyard.edge import orchestration as on
from tiltyard.records import JsonObject
from tiltyard.settings import Settings
from tiltyard.spec import portfolio

settings = Settings()
views = on.feature_assets(portfolio(settings))


@dag(**on.arguments("features", __doc__), schedule=on.timetable(settings))
def features() -> None:
    @task
    def ingest() -> JsonObject:
        with on.working() as rails:
            from tiltyard.prepare import features

            return {source: landed.to_json() for source, landed in features.ingest(rails, on.night()).items()}

    @task
    def transform() -> JsonObject:
        with on.working() as rails:
            from tiltyard.prepare import features

            return features.transform(rails, on.night()).to_json()

    @task
    def checks(build: JsonObject) -> JsonObject:
        on.show(f"data_docs/{on.night():%Y-%m-%d}/", settings)
        with on.working() as rails:
            return on.check(rails, on.night(), build).to_json()

    @task(outlets=views, trigger_rule="all_done_min_one_success")
    def publish() -> JsonObject:
        with on.working() as rails:
            on.announce(views, [on.night()])
            return on.publish(rails, on.night())

    built = transform()
    judged = on.linked(checks(built))  # type: ignore[arg-type]  # the task gets the value of what Airflow is given here
    ingest() >> built >> judged
    [built, judged] >> publish()  # what is good, though a check of something else is red
    judged >> on.Settled(task_id="all_published")  # so that the run is red where a table is not good


features()
