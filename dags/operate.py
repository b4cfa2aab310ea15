"""Do something to a model by hand: roll it back, freeze it, pin it, retire it, and take each of these back.

**What it does.** Start it with the form. `ask` holds what you want against the gate's record (only a version that it
has promoted once may come back, or the safe default), and puts it down in the ledger with your name and reason. It
holds at once in the service, and from the next night on in the batch. A model of tier 1 takes two people: then
`second_person` asks another one under *Required Actions*, and `confirm` reads the answer back from Airflow's own
record, never from a task. No answer within the model's `gate.approval_timeout` is a no. Rolling back to the safe
default takes one person at every tier, and the owner is told. `tiltyard rollback`, `freeze`, `pin` and so on do the
same, and `tiltyard operations` lists all of it.

| action | what comes of it |
|---|---|
| `rollback` | the previous champion, or the `version` that is named, or `default`, is in service again |
| `freeze`, `unfreeze` | it is scored and watched, and nothing but a person changes or trains it |
| `pin`, `unpin` | the `version`, or the present one, serves whatever the gate says; it goes on judging |
| `retire`, `unretire` | its safe default answers; it is not trained, scored or told of |
| `confirm` | as a second person: what waits under the number in `version` |

**What to do when it fails.**

- *ask* is red: the log says in one sentence what may not be, and what may. Nothing was done. Start it again.
- *confirm* is red: the answer does not count (you asked for it yourself, you are not among `approvers`, another
  champion has come meanwhile). Nothing was done, and it still waits: somebody else may confirm it with `confirm`, or
  with `tiltyard operations approve NUMBER`.
- *confirm* is skipped: nobody answered in time, which is a no, or it was decided elsewhere.
- Marking a task as successful does nothing.

**Manual parameters.** `model`, `action`, `version` (a number or `default`; of `confirm` the operation's number),
`reason`, which is kept with your name.
"""

from airflow.sdk import dag, get_current_context, task

from tiltyard.edge import orchestration as on
from tiltyard.records import JsonObject


@dag(**on.operating_arguments(__doc__), schedule=None)
def operate() -> None:
    @task
    def ask() -> JsonObject:
        with on.working() as rails:
            return on.ask_for(rails, dict(get_current_context()["params"]))

    @task
    def confirm() -> JsonObject:
        with on.working() as rails:
            return on.confirm(rails)

    ask() >> on.second_person(asked_by="ask") >> confirm()


operate()
