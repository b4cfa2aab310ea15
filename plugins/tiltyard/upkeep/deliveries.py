"""A delivery that is taken back, and who has used it."""

from collections.abc import Sequence
from dataclasses import dataclass

from tiltyard.lake import identifier
from tiltyard.prepare import replacing
from tiltyard.prepare.replacing import DeliveryWithdrawal
from tiltyard.rails import Rails
from tiltyard.records import Record
from tiltyard.spec import portfolio
from tiltyard.tables import PREDICTION
from tiltyard.words import counted, listed


@dataclass(frozen=True, kw_only=True)
class WithdrawnDelivery(Record):
    """What came of taking a delivery back, and who may have used it."""

    withdrawal: DeliveryWithdrawal
    """The delivery, and what is made anew."""
    answers: dict[str, int]
    """Model → number of its answers since the night that landed it, of the models that read what was made of it. They
    stay as they were given."""
    versions: dict[str, tuple[int, ...]]
    """Model → its versions that were trained since then."""


def withdraw(
    rails: Rails, source: str, file: str, *, table: str | None, by: str, reason: str, holds: Sequence[str]
) -> WithdrawnDelivery:
    """Take a delivery back (`replacing.withdraw`), and count the answers and versions that may have used it."""
    done = replacing.withdraw(rails, source, file, table=table, by=by, reason=reason, holds=holds)
    readers = [spec.name for spec in portfolio(rails.settings) if {*spec.tables} & {*done.below}]
    answers: dict[str, int] = {}
    if readers and rails.lake.has(PREDICTION):
        rows = rails.lake.connection.execute(
            f"select model, count(*) from {identifier(PREDICTION)} where list_contains($models, model) "
            "and night >= $since and tier <> 'shadow' group by model order by model",
            {"models": readers, "since": done.since},
        ).fetchall()
        answers = dict(rows)
    trained = {
        name: tuple(version.version for version in rails.ledger.versions(name) if version.night >= done.since)
        for name in readers
    }
    return WithdrawnDelivery(
        withdrawal=done, answers=answers, versions={name: found for name, found in trained.items() if found}
    )


def summary(done: WithdrawnDelivery) -> str:
    """What the command prints."""
    taken = done.withdrawal
    again = f"tiltyard features --source {taken.source} --as-of {taken.night}"
    lines = [f"{taken.file}: {counted(taken.rows, 'row')} withdrawn, which count as never known from now on."]
    if taken.tables:
        lines.append(f"{listed(taken.tables)}, and what is made of that, is made anew by the next night.")
    if done.answers:
        told = [f"{model} {count:,}" for model, count in done.answers.items()]
        lines.append(f"Answers since the night of {taken.since} that may have used it: {listed(told)}. They stay.")
    for model, numbers in done.versions.items():
        lines.append(f"Trained since: {model} {', '.join(f'v{number}' for number in numbers)}.")
    if taken.kept:
        lines.append(f"The file is kept: {taken.kept}")
    return "\n".join([*lines, f"The next night goes on without it, or {again} does at once."])
