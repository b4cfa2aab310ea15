"""What decides touches nothing: the modules that the package names as pure import none of what can."""

import json
import re
import subprocess
import sys
from pathlib import Path

import tiltyard

LIBRARY = Path(tiltyard.__file__).parent
TOUCHING = {"airflow", "mlflow", "boto3", "great_expectations", "evidently", "duckdb", "sqlalchemy", "dbt", "xgboost"}


def test_pure_modules_import_nothing_that_touches() -> None:
    assert tiltyard.__doc__
    found = re.search(r"Pure, deciding and touching nothing: `([a-z_\s]+)`", tiltyard.__doc__)
    assert found
    names = found.group(1).split()
    assert {"gate", "sequential", "governor"} <= set(names)
    where = {path.stem: path.relative_to(LIBRARY).with_suffix("").parts for path in LIBRARY.rglob("*.py")}
    lines = [f"import tiltyard.{'.'.join(where[name])}" for name in names]
    code = "\n".join(["import json, sys", *lines, "print(json.dumps(sorted(sys.modules)))"])
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert not {name.split(".")[0] for name in json.loads(loaded)} & TOUCHING
