"""Write docs/dags.md from the DAGs themselves: `python docs/generate_dags.py`. A test holds the page to the code."""

from pathlib import Path

from tiltyard.edge.orchestration import describe_dags
from tiltyard.settings import ROOT

if __name__ == "__main__":
    (Path(__file__).parent / "dags.md").write_text(describe_dags(ROOT / "dags"), encoding="utf-8")
