"""Tell people what needs them: what is held, asked, refused or failed, and when it is over.

**What it does.** `tell` looks at all that waits for a person and at the models that did not get through, as the page
does, and puts down in the ledger what is new, what is over and who hears of it, by the routes of
`models/portfolio.yaml`. Then it sends what was put down, mail, chat or pager, through Apprise. What must not wait comes
at once; how much else does is bounded (`pages.per_owner_week`), and the rest is in the digest of the morning.

**What to do when it fails.** Nothing is lost: what a service did not take stays in the ledger and is sent by the next
run that can, for a week. `tiltyard alerts list` shows it.

No night waits for it: `make up` and `tiltyard start` say in their last lines whom nobody could tell, and why.

- *is not set*, or *has no password*: an address is missing. Put it into the environment of Airflow, or into the
  connection that the route names, and let it run again.
- *did not take it*: the service is away, or refuses the address. `tiltyard alerts test OWNER` sends one message to all
  addresses of an owner.
- It ends as skipped: no route is named, so that nobody is told. Everything stands on Tiltyard's page all the same.

**Manual parameters.** None: it tells what there is to tell now.
"""

from airflow.sdk import dag, task

from tiltyard import clock
from tiltyard.edge import orchestration as on
from tiltyard.records import JsonObject

arguments = on.arguments("alerts", __doc__) | {"start_date": None}  # what is past is told by the first run that is due


@dag(**arguments, schedule=on.alerts_schedule(on.in_force()))
def alerts() -> None:
    @task
    def tell() -> JsonObject:
        now = clock.now()
        with on.working() as rails:
            return on.tell(rails, now)

    tell()


alerts()
