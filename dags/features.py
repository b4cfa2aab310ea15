"""Bring last night's data in, build the features of every model, judge the batch, and publish it.

**What it does.** `ingest` lands what became available until the night's `as_of`; `transform` builds staging,
spines, feature views and labels with dbt; `checks` runs the freshness, quality and leakage suites; `publish` puts
the checked snapshot in service, brings the store of online features up to it, and tells every model's shadow DAG.

**What to do when it fails.**

- *checks* is red: a critical check stopped the batch. It is not retried, nothing is published, and yesterday's
  features and the champions stay in service. The button *Report* on the task shows which check and which rows. Mend
  the source, or the check, then clear the run from *ingest*: every step may run twice.
- *transform* is red: the log names the dbt nodes. Mend the SQL, clear *transform*.
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
    def checks() -> JsonObject:
        on.show(f"data_docs/{on.night():%Y-%m-%d}/", settings)
        with on.working() as rails:
            from tiltyard.prepare import features

            return features.check(rails, on.night()).to_json()

    @task(outlets=views)
    def publish() -> JsonObject:
        with on.working() as rails:
            from tiltyard.online import fill
            from tiltyard.prepare import features

            on.announce(views, [on.night()])
            published = features.publish(rails, on.night())
            return {**published.to_json(), "online": fill.fill_night(rails, on.night()).to_json()}

    ingest() >> transform() >> on.linked(checks()) >> publish()


features()
