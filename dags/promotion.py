"""Let the gate judge every challenger on matured truth, ask a person where the stakes are high, move the champion.

**What it does.** `judge` puts the evidence of each challenger before the gate and records the verdict with its
reasons: promote, hold or reject. For a model of tier 1 `approval` then asks a person, with the evidence in the
request; no answer in time is a no. `promote` reads the verdict again from the ledger and the answer from Airflow's own
record, claims the promotion under a unique key, and only then moves the alias. The champion asset is announced when
there is a new champion; otherwise `promote` ends as skipped, and that is a good night too.

**What to do when it fails.**

- *approval* waits: answer it under *Required Actions*. You cannot approve what you started yourself.
- *promote* refuses: the log says why (no recorded answer, the requester approved, the evidence changed meanwhile). The
  attempt is kept in the ledger (`tiltyard status`). Marking tasks as successful promotes nothing. Clear *judge* to
  ask again.
- *judge* fails: missing evidence means hold; the champion stays in service. Clear it when shadow is green.

**Manual parameters.** `as_of`: the one night to judge (again; a verdict once given stands). Empty: whatever is waiting.
"""

from airflow.sdk import task

from tiltyard import orchestration as on
from tiltyard.settings import Settings
from tiltyard.spec import Spec, portfolio


@on.per_model("promotion", schedule=lambda spec: [on.model_asset(spec, "evaluation")], doc=__doc__)  # a dag each
def promotion(spec: Spec) -> None:
    champion = on.model_asset(spec, "champion")

    @task
    def judge() -> dict:
        with on.working() as rails:
            return on.judge(rails, spec)

    @task(outlets=[champion], trigger_rule="none_failed")
    def promote(judged: dict) -> dict:
        with on.working() as rails:
            outcome = on.promote(rails, spec, judged, asked_by="approval")
            if not outcome["promoted"]:
                on.skip(f"The champion stays: {outcome['reason']}")
            on.announce([champion], on.same_nights({judged["night"]: outcome}))
            return outcome

    judged = judge()
    if spec.tier == 1:
        judged >> on.PromotionApproval(task_id="approval", judged_by="judge", spec=spec) >> promote(judged)
    else:
        promote(judged)


for spec in portfolio(Settings()):
    promotion(spec)
