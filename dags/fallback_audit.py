"""Count who answered, model by model, and find those whose safe default has lasted too long.

**What it does.** Each time models were scored, `audit` counts the answers that each of them gave for the night, in the
nightly batch and online, per tier and reason, into `ops.tier_share`. A model of which more than half of a night's
answers were the safe default, night after night for `fallback.audit_after`, gets a task in the ledger, whether it ever
had a champion or not, and its `<model>__explanation` asks a person. A task whose answer has run out is followed by the
next; one whose model has left its safe default is closed as recovered. A model whose audit fails keeps no other from
its own; `alone` does it again in a process of its own, and is red under the model's name where it fails again.

**What to do when it fails.** Nothing is at stake tonight: answers are given whether anybody counts them. The log says
what was missing. Clear *audit*, or the model's *alone*: a night audited again writes the same rows. The nights of a
week are caught up by themselves; older ones are counted with the next night, but nobody is asked about them.

**What to do when it finds a model.** `tiltyard fallback <model>` shows the shares, the reasons and the tasks. The
reason says where to look: `no_champion` is a model that was never promoted (see its gate in `tiltyard status`),
`champion_not_loaded` are files that were refused, `champion_no_score` features that are missing.

**Manual parameters.** `as_of`: the one night to audit (again), of all models; whoever is to be asked is asked again.
Empty: whatever is waiting.
"""

from airflow.sdk import dag, task

from tiltyard.edge import orchestration as on
from tiltyard.records import JsonObject

specs = on.portfolio()


@dag(**on.arguments("fallback_audit", __doc__), schedule=[on.portfolio_asset("evaluation")])
def fallback_audit() -> None:
    @task(outlets=[on.unexplained_assets()])
    def audit() -> list[JsonObject]:
        with on.working() as rails:
            return on.audit_fallback(rails, specs).handed_on()

    @task(outlets=[on.unexplained_assets()], map_index_template="{{ task.op_kwargs['model']['label'] }}")
    def alone(model: JsonObject) -> JsonObject:
        with on.working() as rails:
            return on.audit_alone(rails, specs, str(model["label"]))

    alone.expand(model=audit())


fallback_audit()
