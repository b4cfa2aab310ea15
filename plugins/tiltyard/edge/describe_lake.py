"""How the lake stands, as text for a terminal, a page and a message."""

from tiltyard.records import LakeDamage, LakeMaintenanceSummary, LakeSize, ScrubSummary
from tiltyard.words import counted, listed

PLAIN = (
    "The lake's files are plain: a bit that has turned is found when the file is looked at, within "
    "TILTYARD_LAKE_SCRUB_NIGHTS nights, and until then it gives another value. A lake that is made anew is encrypted, "
    "and finds it with every read."
)
"""What a lake of plain files does not do."""


def lake(maintained: LakeMaintenanceSummary | None, size: LakeSize) -> str:
    """How large the lake is, and when it was last put in order."""
    line = f"lake: {counted(size.files, 'file')}, {size.bytes / 1e6:,.1f} MB, {counted(size.snapshots, 'snapshot')}"
    if maintained is None:
        return f"{line}; never maintained"
    merged = counted(sum(maintained.merged.values()), "file")
    done = f"{counted(maintained.expired, 'snapshot')} expired, {merged} merged"
    scrubbed = maintained.scrub
    plain = f"\n  {PLAIN}" if scrubbed and not scrubbed.is_encrypted else ""
    damaged = f"; {counted(len(scrubbed.damaged), 'damaged file')} then" if scrubbed and scrubbed.damaged else ""
    return f"{line}; maintained on {maintained.night}: {maintained.reason or done}{damaged}{plain}"


def damage(one: LakeDamage) -> str:
    """A damaged file, and who may have used it, as a sentence without its end."""
    said = f"{one.file} with {counted(one.rows, 'row')}: {one.reason}"
    if not one.is_current:
        said += "; the table as it is now does not have it any more"
    if one.versions:
        trained = [f"{model} {', '.join(f'v{number}' for number in own)}" for model, own in one.versions.items()]
        said += f"; trained while it was there: {listed(trained)}"
    if one.answers is None:
        said += "; how many answers were given from it cannot be counted, since they lie in a damaged file, too"
    elif one.answers:
        said += f"; answers since then: {listed([f'{model} {count:,}' for model, count in one.answers.items()])}"
    if one.models and not (one.versions or one.answers):
        said += f"; read by {listed(one.models)}, who have not used it yet"
    return said


def scrub(done: ScrubSummary) -> str:
    """What a look at the lake's files has found."""
    lines = [f"{counted(done.looked_at, 'file')} of the lake's {done.files:,} looked at ({done.bytes / 1e6:,.1f} MB)"]
    if done.never:
        lines.append(f"{counted(done.never, 'file')} not looked at yet")
    lines += [f"damaged: {one.table}, {damage(one)}" for one in done.damaged]
    if not done.is_encrypted:
        lines.append(PLAIN)
    return "\n".join(lines)
