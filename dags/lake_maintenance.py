"""Keep the lake small, and everything in it that somebody may still ask for.

**What it does.** After the night's work, `tidy` lets go of rows whose retention has passed (`TILTYARD_LAKE_RETENTION`;
unset, none ever goes), expires the snapshots that nothing refers to, makes the small files of a table one, writes files
anew from which many rows were deleted, and removes files that nothing reads and files of writers that died. Then it
looks at a share of the lake's files for bits that have turned (`scrub` in its result). It never takes a snapshot that
is in service or younger than `TILTYARD_LAKE_GRACE_H`, nor one that a prediction, a version, a decision, an open
incident, the replay window or a legal hold refers to: `kept` in its result counts them by reason. It holds up a build
for one table at the longest.

**What to do when it fails.** Nothing is at stake tonight: the lake is as it was, only larger, and the next night goes
on. Every step is one transaction, so that a run which was killed has lost nothing. The log says what was missing.

- A retention cannot be: the log says which, and what is the least. Mend `TILTYARD_LAKE_RETENTION`.
- *files of another lake*, or *would be removed as orphans*: no orphan was removed. Two lakes share one folder or bucket
  prefix, or files were moved by hand. See to that; the rest of the work was done and is done every night.
- *A file of … is damaged*: it is in the inbox as well, with the ways out; its table is not merged until then.
- `busy` names tables that others wrote to each time: nothing to do, the next night merges them.

`tiltyard lake-maintenance --dry-run` says what it would do. `tiltyard holds` lists the legal holds.

**Manual parameters.** `as_of`: the night by which retentions are counted. Empty: the run's own day.
"""

from airflow.sdk import dag, task

from tiltyard import clock
from tiltyard.edge import orchestration as on
from tiltyard.records import JsonObject
from tiltyard.settings import Settings

# without a start_date nothing is due at once on a fresh Airflow, where the first night is at work
arguments = on.arguments("lake_maintenance", __doc__) | {"start_date": None}


@dag(**arguments, schedule=on.maintenance_timetable(Settings()))
def lake_maintenance() -> None:
    @task
    def tidy() -> JsonObject:
        now = clock.now()
        with on.working() as rails:
            return on.tidy(rails, on.night(), now)

    tidy()


lake_maintenance()
