"""What a removal takes away, for a person: every path and every table by its name."""

from collections.abc import Mapping

from tiltyard.upkeep.removing import Removal, State
from tiltyard.words import counted

_GIT: Mapping[State, str] = {
    "committed": "",
    "changed": "  (differs from what is committed)",
    "not in git": "  (not in git: nobody can get it back)",
}


def text(removal: Removal) -> str:
    """What goes, or has gone, and what stays."""
    named = f"the {removal.kind} {removal.name}"
    if removal.is_empty and not removal.is_done:
        return "\n".join([f"nothing is left of {named}", *(f"  {sentence}" for sentence in removal.kept)])
    lines = [f"removed {named}:" if removal.is_done else f"with {named} go:"]
    lines += [f"  file    {file.path}{_GIT[file.git]}" for file in removal.files]
    lines += [f"  entry   in {file.path}{_GIT[file.git]}" for file in removal.edited]
    lines += [f"  table   {table}" for table in removal.tables]
    lines += [f"  rows    {counted(count, 'row')} of {table}" for table, count in removal.rows.items()]
    lines += [f"  online  {table}" for table in removal.online]
    lines += [f"  home    {path} ({counted(count, 'file')})" for path, count in removal.folders.items()]
    lines += [f"  {sentence}" for sentence in (*removal.kept, *removal.blocked)]
    return "\n".join(lines)
