"""Let the gate judge every challenger on matured truth, ask a person where the stakes are high, move the champion.

**What it does.** `judge` first looks at a champion that was promoted within `gate.rollback_window`: if the previous one
does better on the truth that has come since, it comes back by itself, and nobody is judged that night. Otherwise the
evidence of each challenger goes before the gate, and the verdict is recorded with its reasons: promote, hold or reject.
For a verdict of promote the button *Report* opens the evidence page. For a model of tier 1 `approval` then asks a
person to approve that page (`second_approval` another one, where the spec says `approvals: 2`); no answer in time is a
no. `promote` reads the verdict again from the ledger and the answers from Airflow's own record, checks that the page
is still the one that was approved, claims the promotion under a unique key, and only then moves the alias. The
champion asset is announced when there is another champion; otherwise `promote` ends as skipped, a good night too.

**What to do when it fails.**

- *approval* waits: answer it under *Required Actions*. You cannot approve what you started or trained yourself, and
  nobody can answer both. `tiltyard train` knows you by `TILTYARD_USER`, or else by your login on that machine: let it
  be your login in Airflow, for names are all that can be compared. A version whose author is not known stays out.
- *promote* refuses: the log says why (no recorded answer, the requester approved, the page was changed meanwhile). The
  attempt is kept in the ledger (`tiltyard status`). Marking tasks as successful promotes nothing. Clear *judge* to
  ask again; delete a page that was changed first, and it is drawn as it was.
- The champion went back: `tiltyard status` says on which rows. What was sent back does not challenge again; train anew.
- *judge* fails: missing evidence means hold; the champion stays in service. Clear it when shadow is green.

**Manual parameters.** `as_of`: the one night to judge (again; a verdict once given stands). Empty: whatever is waiting.
"""

from airflow.sdk import task

from tiltyard.edge import orchestration as on
from tiltyard.records import JsonObject
from tiltyard.settings import Settings
from tiltyard.spec import Spec, portfolio


@on.per_model("promotion", schedule=lambda spec: [on.model_asset(spec, "evaluation")], doc=__doc__)  # a dag each
def promotion(spec: Spec) -> None:
    champion = on.model_asset(spec, "champion")

    @task
    def judge() -> JsonObject:
        with on.working() as rails:
            return on.judge(rails, spec).to_json()

    @task(outlets=[champion], trigger_rule="none_failed")
    def promote(judged: JsonObject) -> JsonObject:
        with on.working() as rails:
            promoted = on.promote(rails, spec, on.JudgedNight.from_json(judged))
            if promoted.night is None or not promoted.changed:
                on.skip(f"The champion stays: {promoted.reason}")
            on.announce([champion], on.same_nights([promoted.night]))
            return promoted.to_json()

    judged = on.linked(judge())
    approvals = on.approvals(spec, judged_by="judge")
    promoted = promote(judged)
    if approvals:
        judged >> approvals >> promoted


for spec in portfolio(Settings()):
    promotion(spec)
