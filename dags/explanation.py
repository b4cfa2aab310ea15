"""Ask a person why a model has been on its safe default for so long, until somebody says.

**What it does.** `explain` opens a form under *Required Actions*: the cause, the owner who sees to it, and until when
the model may stay there. It waits for as long as it takes; there is no default and no silence that counts as an answer.
Every six hours it looks whether it is still asked: when the model has left its safe default, or somebody has answered
from a terminal (`tiltyard fallback explain <model> …`), it ends as skipped. The answer goes to the ledger with the name
of whoever was logged in, as the `airflow` database recorded it. On the first night after `until` on which the safe
default still answers, it asks again.

**What to do when it fails.**

- *kept* is red, and it asks again at once: the last answer was none (a cause or an owner is empty, the day has passed
  or is too far away). The question begins with what was wrong.
- *explain* is red: the log says why. The task is still open in the ledger. Clear it, or start the DAG by hand.
- Marking it as successful answers nothing: the next night asks again.

**What to do when it keeps asking.** The reasons in the question say why no model answers; mend that. A model that
nobody will mend should not be there: delete its folder. Its question ends with the next run of any source's features,
and so does that of a model which gets another name.

**Manual parameters.** `as_of` has no effect: what is open in the ledger is asked.
"""

from airflow.sdk import task

from tiltyard.edge import orchestration as on
from tiltyard.records import JsonObject
from tiltyard.spec import Spec


@on.per_model("explanation", schedule=lambda spec: [on.model_asset(spec, "unexplained")], doc=__doc__)  # a dag each
def explanation(spec: Spec) -> None:
    @task
    def kept(answer: JsonObject) -> JsonObject:
        return on.require_kept(answer)

    kept(on.explanation(spec).output)  # type: ignore[arg-type]  # what stands for it until it has run


for spec in on.portfolio():
    explanation(spec)
