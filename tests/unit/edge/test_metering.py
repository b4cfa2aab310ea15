"""What a process has used is what the system says that it has used, and all of it is somebody's."""

import json
import os
import subprocess
import sys
from datetime import date

import pytest

from tiltyard import child
from tiltyard.edge.metering import Meter
from tiltyard.records import Usage
from tiltyard.records.cost import divided, total

NIGHT = date(2024, 3, 2)
WORKER = """
import json, sys, tempfile, subprocess
from datetime import date
from tiltyard.edge.metering import meter

def burn(rounds):
    for _ in range(rounds):
        sum(number * number for number in range(100_000))

night = date(2024, 3, 2)
with meter.span("ant", [night]):
    burn(120)
    with tempfile.TemporaryFile() as file:
        file.write(b"x" * 5_000_000)
with meter.span("bee", [night, date(2024, 3, 1)]):
    subprocess.run([sys.executable, "-c", "sum(n * n for n in range(20_000_000))"], check=True)
burn(80)
print(json.dumps([cost.to_json() for cost in meter.settle("drift", "", night)]))
"""


def test_the_parts_add_up_to_what_the_system_says_of_the_process() -> None:
    process = subprocess.Popen([sys.executable, "-c", WORKER], env=child.environment(), stdout=subprocess.PIPE)
    assert process.stdout is not None
    costs = json.loads(process.stdout.read())
    _, _, used = os.wait4(process.pid, 0)
    process.returncode = 0
    cpu_s = {(cost["name"], cost["night"]): cost["usage"]["cpu_s"] for cost in costs}
    assert sum(cpu_s.values()) == pytest.approx(used.ru_utime + used.ru_stime, rel=0.05)
    assert cpu_s["bee", "2024-03-01"] == pytest.approx(cpu_s["bee", "2024-03-02"]), "two nights bear equal parts"
    assert all(cost["usage"]["memory_bytes"] <= used.ru_maxrss * 1024 for cost in costs)
    written = sum(cost["usage"]["written_bytes"] for cost in costs)
    assert written == 0 or written >= 5_000_000, "nothing where the system does not count, else all of it"


def test_a_process_without_a_model_of_its_own_is_that_of_its_dag() -> None:
    [cost] = Meter().settle("features", "shop", NIGHT)
    assert (cost.stage, cost.name, cost.night) == ("features", "shop", NIGHT)
    assert cost.usage.cpu_s > 0


def test_what_was_settled_is_not_counted_again() -> None:
    meter = Meter()
    meter.settle("drift", "", NIGHT)
    [again] = meter.settle("drift", "", NIGHT)
    assert again.usage.cpu_s < 1.0


def test_what_is_nobodys_own_is_shared_by_the_own_cpu_seconds() -> None:
    whole = Usage(cpu_s=12.0, wall_s=24.0, memory_bytes=9, read_bytes=120)
    parts = divided(whole, {"ant": Usage(cpu_s=1.0), "bee": Usage(cpu_s=3.0)})
    assert parts["ant"] == Usage(cpu_s=3.0, wall_s=6.0, memory_bytes=9, read_bytes=30)
    assert total(parts.values()) == whole
    alike = divided(whole, {"ant": Usage(), "bee": Usage()})
    assert alike["ant"] == alike["bee"]
