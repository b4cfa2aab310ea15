"""One night of one model through Airflow, features to promotion and drift, beside the 40 s that it may take; and the
parse of dags/ besides importing Airflow, beside the second that it may take.

Uses the simulator; starts PostgreSQL and Airflow in a home of its own on a free port, and stops them.
"""

import os
import subprocess
import sys
import tempfile
import time
from datetime import timedelta
from pathlib import Path

from servers.process import free_port

from tiltyard import clock
from tiltyard import rails as rails_module
from tiltyard.edge import quickstart, services
from tiltyard.edge.airflow_api import Airflow
from tiltyard.edge.airflow_settings import airflow_env, tiltyard_env
from tiltyard.prepare import releasing
from tiltyard.prepare.simulator import Simulator
from tiltyard.rewind import hindcast
from tiltyard.settings import ROOT, Settings
from tiltyard.spec import find
from tiltyard.stages import IN_CHUNKS, PER_SOURCE, dag_of

FIRST = clock.parse_as_of("2025-02-03")
LIMIT_S, PARSE_LIMIT_S = 40.0, 1.0
PARSE = """
import time
import airflow.sdk, airflow.providers.standard.operators.hitl, airflow.dag_processing.dagbag as bag
begun = time.perf_counter()
found = bag.DagBag({folder!r}, collect_dags=True)
print(time.perf_counter() - begun, len(found.dags))
"""


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="tiltyard-bench-") as folder:
        Path(folder).chmod(0o755)
        settings = Settings(
            home=Path(folder) / "home", sources=("subscription",), schedule="none", api_port=free_port()
        )
        Simulator(customers=1_200, days=45).land(settings.landing / "subscription")
        spec = find(settings.models, "churn")
        try:
            with rails_module.opened(settings) as rails:
                releasing.accept(rails, clock.now(), by="benchmarks")  # as `make up` has done before Airflow starts
                hindcast.hindcast(rails, [spec], FIRST, FIRST)
                begun = time.perf_counter()
                services.start(settings)
                print(f"Airflow healthy after {time.perf_counter() - begun:.1f} s, its first migration included")
                seconds, dags = parse(settings)
                share = seconds / PARSE_LIMIT_S
                print(
                    f"parse of dags/: {seconds:.2f} s for {dags} DAGs, {share:.2f} of the {PARSE_LIMIT_S:.0f} s allowed"
                )
                with Airflow(settings) as airflow:
                    airflow.wait_for_dags(quickstart.dag_ids(settings, (spec,)))
                    for number in (1, 2):
                        as_of = FIRST + number * timedelta(days=1)
                        begun = time.perf_counter()
                        quickstart.night_in_airflow(rails, airflow, (spec,), as_of)
                        wall = time.perf_counter() - begun
                        print(f"night {number}: {wall:.1f} s, {wall / LIMIT_S:.2f} of the {LIMIT_S:.0f} s allowed")
                        tell(airflow, [dag_of(stage, spec.name, spec.source) for stage in (*PER_SOURCE, *IN_CHUNKS)])
        finally:
            services.stop(settings)


def tell(airflow: Airflow, dag_ids: list[str]) -> None:
    """Wall of the newest run of each DAG, and of its tasks."""
    for dag_id in dag_ids:
        run = airflow.wait(dag_id, airflow.runs(dag_id)[0].dag_run_id)
        tasks = ", ".join(
            f"{task.task_id} {task.duration:.1f}" for task in airflow.tasks(dag_id, run.dag_run_id) if task.duration
        )
        assert run.start_date and run.end_date
        print(f"  {dag_id:22} {(run.end_date - run.start_date).total_seconds():5.1f} s ({tasks})")


def parse(settings: Settings) -> tuple[float, int]:
    """Seconds that dags/ takes besides importing Airflow, and the number of DAGs."""
    environment = airflow_env(settings) | tiltyard_env(settings) | {"PYTHONPATH": str(ROOT / "plugins")}
    command = [sys.executable, "-c", PARSE.format(folder=str(ROOT / "dags"))]
    done = subprocess.run(command, env=os.environ | environment, capture_output=True, text=True, check=True)
    seconds, dags = done.stdout.split()[-2:]
    return float(seconds), int(dags)


if __name__ == "__main__":
    main()
