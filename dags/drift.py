"""Compare what the model sees and says with what it was trained on, and tell the governor.

**What it does.** `compare` screens every feature and the predictions against the histograms kept with the model, draws
the Evidently report where something moved, looks at the realized performance on matured labels, and keeps what it
found in the ledger. Its asset starts the governor, which decides for all models together who retrains.

**What to do when it fails.** Nothing is at stake tonight: a model without a finding is not retrained, and the champion
stays in service. The log says what was missing. Clear *compare*; the night's rows are replaced. The button *Report* on
*compare* opens the report; which columns moved, and why, is also in its return value. While it is red the governor
waits with the night, until the next one is published.

**What to do when it keeps alarming.** A retrain every cooldown that never gets promoted means that the world moved in
a way the features do not describe. Set `drift.on_drift: report` in the spec and look at the columns.

**Manual parameters.** `as_of`: the one night to do (again). Empty: whatever is waiting, else the newest night.
"""

from airflow.sdk import task

from tiltyard.edge import orchestration as on
from tiltyard.records import JsonObject
from tiltyard.settings import Settings
from tiltyard.spec import Spec, portfolio


@on.per_model("drift", schedule=lambda spec: [on.model_asset(spec, "evaluation")], doc=__doc__)  # a dag each
def drift(spec: Spec) -> None:
    finding = on.model_asset(spec, "finding")

    @task(outlets=[finding])
    def compare() -> dict[str, JsonObject]:
        with on.working() as rails:
            from tiltyard.govern import drift

            findings = on.each_night(rails, spec, on.nights(rails, "drift", spec), drift.measure_night)
            on.show(str(findings[max(findings)].report or f"drift/{spec.name}/"), rails.settings)
            on.announce([finding], on.same_nights(findings))
            return on.kept(findings)

    on.linked(compare())


for spec in portfolio(Settings()):
    drift(spec)
