"""Train a challenger: on the rows as they were known then, kept for good, registered and never served unseen.

**What it does.** `train` writes the point-in-time training frame as immutable Parquet, lets the leakage gate look at
it, tunes, fits the champion-to-be and its light twin, measures both on the latest matured cohorts, and registers the
version as `challenger`. It is one task, since each process would import XGBoost and MLflow and read the frame again.
It starts when the governor grants a retrain. The same frame, spec and seed give the same version: nothing is trained
twice.

**What to do when it fails.**

- The leakage gate stopped it: a feature carries what could not be known at the prediction time. The log names the
  column and the rule. Mend the feature's SQL; never widen the rule. The champion stays in service meanwhile.
- The replay stopped it: predictions were made from other values than the lake shows for them today. The log names the
  feature, a row, and the commit that wrote it over; `tiltyard leakage replay --report` shows all of them. Take the
  column out of its feature view, or mend the source; `leakage.max_changed` is for late deliveries only.
- It ends as skipped: too few matured labels, or only one kind. Wait, or make `estimator.window` longer in the spec.
- A newer attempt is at work: nothing to do.
- It took longer than it may (`TILTYARD_STAGE_LIMITS`): see where in the log. Others had waited for its place.
- It stays *scheduled*: others are training, those of tier 1 before the rest. Airflow's pool `trainings` has
  `trainings.at_once` slots (portfolio.yaml), and `gpu`, of models with `device: cuda`, `trainings.on_gpu`.

**Manual parameters.** `as_of`: train as of this night, like `2016-05-02`. Empty: the nights that were granted.
The first version of a new model is trained by hand: start this DAG with `as_of`.
"""

from airflow.sdk import task

from tiltyard.edge import orchestration as on
from tiltyard.records import JsonObject
from tiltyard.settings import GPU_POOL, TRAINING_POOL
from tiltyard.spec import Spec


@on.per_model("training", schedule=lambda spec: [on.model_asset(spec, "drift")], doc=__doc__)  # a dag each
def training(spec: Spec) -> None:
    challenger = on.model_asset(spec, "challenger")

    @task(
        outlets=[challenger],
        pool=GPU_POOL if spec.estimator.device == "cuda" else TRAINING_POOL,
        priority_weight=on.by_stakes(spec),
        weight_rule="absolute",
    )
    def train() -> dict[str, JsonObject]:
        with on.working() as rails:
            summaries = on.each_night(rails, spec, on.nights(rails, "training", spec), on.train)
            trained = {night: summary for night, summary in summaries.items() if summary.trained}
            if not trained:
                on.skip(f"No version: {summaries[max(summaries)].reason}")
            on.announce([challenger], on.same_nights(trained))
            return on.kept(summaries)

    train()


for spec in on.portfolio():
    training(spec)
