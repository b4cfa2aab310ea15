"""Turn what drift found of all models on a night into the few retrains that the portfolio affords.

**What it does.** Each time drift has looked at models, and every hour, `decide` asks whether a night is complete. While
models are missing it ends as skipped: *waits for 3 of 80*. A night is complete when every active model has a finding,
or when its shadow or drift is recorded as stopped or failed, or when a later night is published, or when it was
published `TILTYARD_GOVERNOR_WAIT_H` hours ago: whoever has not come by then waits, and the others go on. Then one
decision is made for all models, recorded, and the training DAGs of those that are granted a retrain are started. Broken
and missing data is an incident and never a reason to retrain; what many models show at once is one incident of the
table that they have in common.

**What to do when it fails.** Nothing is at stake tonight: no decision means no retrain, and the champions stay in
service. The log says what was missing. Clear *decide*: a night done again keeps what it granted, and says so again.

**What to do when it holds models back.** `tiltyard incidents` names the table, the models and the columns.

- *broken*, *missing*: mend the source. The incident then says *mended, closes with the night of …*, and closes by
  itself when that night is decided on.
- *shared shift*: columns of many models moved at once. Look upstream first: a change of units, a join, a renamed
  category. Where it is the world that changed, say so, with your name and a reason, and they may retrain:
  `tiltyard incidents release NODE --reason …`.

**What to do when models stay queued.** More ask than `trainings.per_night` of `models/portfolio.yaml` allows. Tier 1
goes first, then who has the most evidence. Trainings that hang count as well: look at the training DAGs.

**Manual parameters.** `as_of`: the one night to decide on (again), without waiting for anybody. Empty: whatever is
complete.
"""

from airflow.sdk import dag, task

from tiltyard.edge import orchestration as on
from tiltyard.records import JsonObject
from tiltyard.settings import Settings

settings = Settings()
specs = on.portfolio()


@dag(**on.arguments("governor", __doc__), schedule=on.governor_schedule(settings))
def governor() -> None:
    @task(outlets=[on.granted_assets()])
    def decide() -> dict[str, JsonObject]:
        with on.working() as rails:
            decided = on.grant(rails, specs, on.governed_nights(rails, specs))
            return on.in_short(decided)

    decide()


governor()
