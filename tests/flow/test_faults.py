"""The programme of faults in its short form, as a person runs it: its cheapest part, on cases no other test draws."""

import json
import subprocess
import sys
from pathlib import Path

from tiltyard.settings import ROOT

SEED = 7
"""Not the programme's own, and none of the tests': what is drawn here is drawn nowhere else."""


def test_the_cheapest_part_holds_in_short(tmp_path: Path) -> None:
    results = tmp_path / "faults.json"
    asked = ["--short", "--only", "late", "--seed", str(SEED), "--minutes", "8", "--json", str(results)]
    done = subprocess.run(
        [sys.executable, "benchmarks/programme.py", *asked], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    counts = {own["part"]: own["tally"] for own in json.loads(results.read_text())}
    assert counts == {"late": {"tried": 5, "held": 5, "untried": 0, "lost": []}}
    assert str(SEED) in done.stdout, "the table says what has drawn the cases"
