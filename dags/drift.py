"""Compare what each model sees and says with what it was trained on, and tell the governor.

**What it does.** For every model that shadow has done: screen every feature and the predictions against the histograms
kept with the model, look at the realized performance on matured labels, and keep the finding in the ledger. The
findings start the governor, which decides for all models together who retrains.

`plan` asks the ledger which models have which nights to do; `chunk` does many of them in one process, `alone` those
that failed there, each by itself. What fits into one chunk `plan` does itself.

**What to do when it fails.** `alone` is red, under the model's name; its log says why. Nothing is at stake tonight: a
model without a finding is not retrained, and the champion stays in service. Clear it; the night's rows are replaced.
The button *Report* of a task about one model draws the night's page when it is pressed, that of a chunk opens the
folder of reports. The governor waits for nobody whose drift has failed.

**What to do when it keeps alarming.** A retrain every cooldown that never gets promoted means that the world moved in
a way the features do not describe. Set `drift.on_drift: report` in the spec and look at the columns.

**Manual parameters.** `as_of`: the one night to do (again). `models`: the only ones to do. Empty: whatever is waiting.
"""

from airflow.sdk import dag

from tiltyard.edge import orchestration as on

specs = on.portfolio()


@dag(**on.arguments("drift", __doc__), schedule=[on.portfolio_asset("evaluation")])
def drift() -> None:
    on.in_chunks("drift", specs, on.look_at_model, on.announce_findings)


drift()
