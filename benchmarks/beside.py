"""One benchmark of two checkouts, in turns: what a change costs.

    python benchmarks/beside.py ../before drift --rounds 3 [-- --predictions 200]

Each checkout has an environment of its own (`bash tools/environment`) and runs its own copy of the benchmark, the one
after the other in every round, so that both meet the same machine. Printed are the CPU seconds of the whole run,
children included, and of each round the ratio of this checkout's to the other's: the median, with the least and the
largest. A benchmark that ends with exit code 1 because it missed a limit of its own counts as well; its other
failures end this.
"""

import argparse
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parents[1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("other", type=Path, help="the other checkout")
    parser.add_argument("benchmark", help="name of a file in benchmarks/, without .py")
    parser.add_argument("--rounds", type=int, default=3)
    end = sys.argv.index("--") if "--" in sys.argv else len(sys.argv)
    asked, arguments = parser.parse_args(sys.argv[1:end]), sys.argv[end + 1 :]  # those are the benchmark's
    ratios = []
    print(f"{asked.benchmark}: CPU s (wall s)    {'there':>18} {'here':>18}   here / there")
    for number in range(asked.rounds):
        order = (asked.other.resolve(), HERE) if number % 2 == 0 else (HERE, asked.other.resolve())
        seconds = {checkout: measured(checkout, asked.benchmark, arguments) for checkout in order}
        (there, there_wall), (here, here_wall) = seconds[asked.other.resolve()], seconds[HERE]
        ratios.append(here / there)
        figures = f"{there:.1f} ({there_wall:.1f})", f"{here:.1f} ({here_wall:.1f})"
        print(f"  round {number + 1:<22} {figures[0]:>18} {figures[1]:>18}   {ratios[-1]:.3f}", flush=True)
    print(f"  median {statistics.median(ratios):.3f}, {min(ratios):.3f} to {max(ratios):.3f}")


def measured(checkout: Path, benchmark: str, arguments: list[str]) -> tuple[float, float]:
    """(CPU seconds with all children that ended, wall seconds) of one run of a checkout's benchmark."""
    python = checkout / ".venv" / "bin" / "python"
    if not python.exists():
        sys.exit(f"{checkout} has no environment; run bash tools/environment there.")
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    done = subprocess.run(
        [str(python), f"benchmarks/{benchmark}.py", *arguments], cwd=checkout, capture_output=True, text=True
    )
    wall, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode not in (0, 1) or "Traceback" in done.stderr:
        sys.exit(f"{checkout}: {benchmark} failed: {done.stderr[-2000:]}")
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, wall


if __name__ == "__main__":
    main()
