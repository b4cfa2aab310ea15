"""Let the gate judge every challenger on matured truth, ask a person where the stakes are high, move the champion.

**What it does.** `judge` first looks at a champion that was promoted within `gate.rollback_window`: if the previous one
does better on the truth that has come since, it comes back by itself, and nobody is judged that night. Otherwise the
evidence of each challenger goes before the gate, and the verdict is recorded with its reasons: promote, hold or reject.
What may be promoted is: claimed under a unique key in the ledger, and only then moves the alias. `promotion` does this
for all models, many in one process (`chunk`), and `alone` for those that failed there, each by itself.

A model of tier 1 has a DAG of its own, `<model>__promotion`, which `promotion` starts when the gate says promote. Its
`judge` gets the recorded verdict back; *Report* opens the evidence page, which `approval` asks a person to approve
(`second_approval` another one, where the spec says `approvals: 2`); no answer in time is a no. `promote` reads verdict
and answers from the records, never from a task, and checks that the page is still the one that was approved. While a
question is open, the model is judged there only. Where the champion stays, `promote` ends as skipped. A model that a
person has frozen or pinned is judged all the same; nobody is asked, and nothing is promoted.

**What to do when it fails.**

- *alone* is red, under the model's name: missing evidence means hold, the champion stays in service. Clear it when
  shadow is green; `judge` likewise.
- *approval* waits: answer it under *Required Actions*. You cannot approve what you started or trained yourself, and
  nobody can answer both. `tiltyard train` knows you by `TILTYARD_USER`, or else by your login on that machine: let it
  be your login in Airflow, for names are all that can be compared. A version whose author is not known stays out.
- *promote* is red: somebody has approved, and that does not count. The log says why (the requester approved, somebody
  who is not among `approvers`, the page was changed meanwhile), and who may. The attempt is kept among the model's
  decisions, on its page, and stands in the inbox. Marking tasks as successful promotes nothing. Clear *judge* to ask
  again; delete a page that was changed first, and it is drawn as it was.
- The model is gone, has another name, or is of another tier: its question ends with the next run of any source's
  features.
- The champion went back: `tiltyard status` says on which rows. What was sent back does not challenge again; train anew.

**Manual parameters.** `as_of`: the one night to judge (again; a verdict once given stands). `models`, of the
portfolio's: the only ones to judge. Empty: whatever is waiting. Whoever starts it cannot approve what comes of it.
"""

from airflow.sdk import dag, task

from tiltyard.edge import orchestration as on
from tiltyard.records import JsonObject
from tiltyard.spec import Spec

specs = on.portfolio()


@dag(**on.arguments("promotion", __doc__), schedule=[on.portfolio_asset("evaluation")])
def promotion() -> None:
    on.in_chunks("promotion", specs, on.judge_model, on.announce_promotions)


@on.per_model("promotion", schedule=lambda spec: [on.model_asset(spec, "proposal")], doc=__doc__)  # a dag each
def asking(spec: Spec) -> None:
    champion = on.model_asset(spec, "champion")

    @task
    def judge() -> JsonObject:
        with on.working() as rails:
            return on.judge(rails, spec).to_json()

    @task(outlets=[champion], trigger_rule="none_failed")
    def promote(judged: JsonObject) -> JsonObject:
        with on.working() as rails:
            promoted = on.promote(rails, spec, on.JudgedNight.from_json(judged))
            if promoted.refused:
                on.fail(f"The champion stays: {promoted.reason} {promoted.refused}")
            if promoted.night is None or not promoted.changed:
                on.skip(f"The champion stays: {promoted.reason}")
            on.announce([champion], on.same_nights([promoted.night]))
            return promoted.to_json()

    judged = on.linked(judge())
    judged >> on.approvals(spec, judged_by="judge") >> promote(judged)


promotion()
for spec in specs:
    if on.asks(spec):
        asking(spec)
