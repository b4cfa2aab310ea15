"""Let champion and challengers score the same rows, and measure them against the truth that has matured.

**What it does.** For every model whose feature views are published: predict the night's rows with the champion and
every challenger, unseen by anyone who acts on predictions; join the labels that matured since, and write the metrics of
each version, overall and per slice. Then promotion, drift and the audit start. Nights that were missed are done as
well. Where a spec says `deliver`, the night's answers are brought there, with whatever is owed of nights before.

`hours`, where a model is answered by the hour: score and deliver the rows of every hour that was published and not
answered, until the night closes over them. Nothing is judged by it.

`plan` asks the ledger which models have which nights to do and divides them into chunks; `chunk` does its models one
after the other in one process. A model that fails there stops no other: `left` finds it, and `alone` does it again in a
process of its own. What fits into one chunk `plan` does itself.

**What to do when it fails.** `alone` is red, under the model's name; its log says why. All other models are done.

- A version's files do not match their digests: somebody or something changed them. Do not copy others over them; train
  again (`<model>__training`), the champion of the ledger stays what it is.
- A newer attempt is at work: nothing to do, the other run is doing the night.
- It took longer than it may (`TILTYARD_STAGE_LIMITS`), or its process was killed: see where in the log; with *killed*,
  look at the memory. A red `chunk` was killed by one of its models, which `alone` names.
- A night is green and its answers are not at their destination: that is an event and no failure. `tiltyard status` says
  what is owed and why; the next night brings it, or `tiltyard deliver`.
- `hours` is red: it names the models. The next hour answers what this one has not, and the night what is left then.
- Anything else was tried three times. Clear *alone*; what it wrote for the night is replaced.

While a model is red, its predictions are missing, promotion holds it and drift says nothing of it: no decision is made
on missing rows.

**Manual parameters.** `as_of`: the one night to do (again). `models`: the only ones to do. Empty: whatever is waiting.
"""

from airflow.sdk import dag, task

from tiltyard.edge import orchestration as on
from tiltyard.records import JsonObject

specs = on.portfolio()


@dag(**on.arguments("shadow", __doc__), schedule=on.any_feature(specs))
def shadow() -> None:
    on.in_chunks("shadow", specs, on.shadow_model, on.announce_evaluations)
    if on.hourly(specs):

        @task
        def hours() -> JsonObject:
            with on.working() as rails:
                return on.answer_hours(rails, specs)

        hours()


shadow()
