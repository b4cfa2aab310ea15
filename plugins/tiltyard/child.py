"""What a child process of the library is given of this one's environment: what it needs to run, and no secret."""

import os
from pathlib import Path

_PASSED = ("PATH", "HOME", "TMPDIR", "LANG", "LC_ALL", "LD_LIBRARY_PATH", "PYTHONDONTWRITEBYTECODE")
_LIBRARY = Path(__file__).resolve().parents[1]
"""Folder that `import tiltyard` looks in."""


def environment() -> dict[str, str]:
    """Environment for `python -m tiltyard.…` as a child that parses or scores: one thread in every library, no display.

    Settings stay behind, and with them passwords and keys: a child that reads files which a crash or worse may come of
    is told its folder on its command line.
    """
    path = os.pathsep.join(part for part in (str(_LIBRARY), os.environ.get("PYTHONPATH")) if part)
    passed = {name: os.environ[name] for name in _PASSED if name in os.environ}
    return passed | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1", "MPLBACKEND": "agg"}
