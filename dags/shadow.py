"""Let champion and challengers score the same rows, and measure them against the truth that has matured.

**What it does.** `score` predicts the night's rows with the champion and every challenger, unseen by anyone who acts
on predictions; `evaluate` joins the labels that matured since, and writes the metrics of each version, overall
and per slice. Then promotion and drift start. It starts when all of the model's feature views are published, and
does the nights that were missed as well.

**What to do when it fails.**

- The log says that a version's files do not match their digests: somebody or something changed them. Do not
  copy others over them; train again (`<model>__training`), the champion of the ledger stays what it is.
- A newer attempt is at work: nothing to do, the other run is doing the night.
- Anything else was tried three times. Clear *score*; both steps replace what they wrote for the night.

While it is red, predictions are missing, promotion holds and drift says nothing: no decision is made on missing rows.

**Manual parameters.** `as_of`: the one night to do (again). Empty: whatever is waiting, else the newest night.
"""

from airflow.sdk import task

from tiltyard.edge import orchestration as on
from tiltyard.records import JsonObject
from tiltyard.settings import Settings
from tiltyard.spec import Spec, portfolio


@on.per_model("shadow", schedule=lambda spec: on.feature_assets([spec]), doc=__doc__)  # a dag each
def shadow(spec: Spec) -> None:
    evaluation = on.model_asset(spec, "evaluation")

    @task
    def score() -> dict[str, JsonObject]:
        with on.working() as rails:
            from tiltyard.judge import shadow

            return on.kept(on.each_night(rails, spec, on.nights(rails, "shadow", spec), shadow.score))

    @task(outlets=[evaluation])
    def evaluate(scored: dict[str, JsonObject]) -> dict[str, JsonObject]:
        with on.working() as rails:
            evaluated = on.evaluate(rails, spec, scored)
            on.announce([evaluation], on.same_nights(evaluated))
            return on.kept(evaluated)

    evaluate(score())  # type: ignore[arg-type]  # the task gets the value of what Airflow is given here


for spec in portfolio(Settings()):
    shadow(spec)
