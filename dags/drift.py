"""Compare what the model sees and says with what it was trained on, and ask for a retrain where one is due.

**What it does.** `compare` screens every feature and the predictions against the histograms kept with the model, draws
the Evidently report where something moved, and looks at the realized performance on matured labels. The governor
turns the verdict into at most one retrain per cooldown. `request_retrain` is skipped unless the verdict is
*retrain*; when it runs, its asset starts the training DAG.

**What to do when it fails.** Nothing is at stake tonight: no drift verdict means no retrain, and the champion stays
in service. The log says what was missing. Clear *compare*; the night's rows are replaced. The button *Report* on
*compare* opens the report; which columns moved, and why, is also in its return value.

**What to do when it keeps asking.** A retrain every cooldown that never gets promoted means that the world moved in
a way the features do not describe. Set `drift.on_drift: report` in the spec and look at the columns.

**Manual parameters.** `as_of`: the one night to do (again). Empty: whatever is waiting, else the newest night.
"""

from airflow.sdk import task

from tiltyard import orchestration as on
from tiltyard.settings import Settings
from tiltyard.spec import Spec, portfolio


@on.per_model("drift", schedule=lambda spec: [on.model_asset(spec, "evaluation")], doc=__doc__)  # a dag each
def drift(spec: Spec) -> None:
    wanted = on.model_asset(spec, "drift")

    @task
    def compare() -> dict:
        with on.working() as rails:
            from tiltyard import drift

            found = on.each_night(rails, spec, on.nights(rails, "drift", spec), drift.run)
            on.show(found[max(found)]["report"] or f"drift/{spec.name}/", rails.settings)
            return found

    @task(outlets=[wanted])
    def request_retrain(found: dict) -> dict:
        asked = {night: finding for night, finding in found.items() if finding["retrain_requested"]}
        if not asked:
            on.skip("No night asks for a retrain.")
        on.announce([wanted], on.same_nights(asked))
        return {night: finding["reasons"] for night, finding in asked.items()}

    request_retrain(on.linked(compare()))


for spec in portfolio(Settings()):
    drift(spec)
