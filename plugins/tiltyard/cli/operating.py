"""`rollback`, `freeze`, `pin`, `retire` and what takes them back: what a person does to a model by hand; `operations`:
what was asked for, and a second person's word."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from tiltyard import clock
from tiltyard.cli import options
from tiltyard.cli.options import Json, Model
from tiltyard.cli.output import emit, say

if TYPE_CHECKING:
    from tiltyard.judge.operate import Operated
    from tiltyard.records import Operation, OperationAction

PANEL = "By hand"
commands = typer.Typer()
operations = typer.Typer(help="What was done to models by hand, and what waits for a second person.")
commands.add_typer(operations, name="operations", rich_help_panel=PANEL, epilog="Example: tiltyard operations")

Reason = Annotated[str, typer.Option(help="Why; kept with your name.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Only say what would be done.")]


@commands.command(
    rich_help_panel=PANEL, epilog="Example: tiltyard rollback churn --reason 'too high for new customers'"
)
def rollback(
    model: Model,
    reason: Reason,
    to: Annotated[
        str | None, typer.Option("--to", metavar="N|default", help="Which version. Default: the previous champion.")
    ] = None,
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Put the previous champion, or another version that the gate has promoted once, or the safe default, in service.

    It answers at once online, and from the next night on in the batch. Of tier 1 a second person has to confirm it, but
    for --to default.
    """
    _do("rollback", model, reason, to=to, dry_run=dry_run, as_json=as_json)


@commands.command(rich_help_panel=PANEL, epilog="Example: tiltyard freeze churn --reason 'year-end closing'")
def freeze(model: Model, reason: Reason, dry_run: DryRun = False, as_json: Json = False) -> None:
    """Leave a model as it is: scored and watched, and neither trained nor changed by anything but a person."""
    _do("freeze", model, reason, dry_run=dry_run, as_json=as_json)


@commands.command(rich_help_panel=PANEL, epilog="Example: tiltyard unfreeze churn --reason 'the books are closed'")
def unfreeze(model: Model, reason: Reason, dry_run: DryRun = False, as_json: Json = False) -> None:
    """Let the gate, the rollback watch and the governor change a frozen model again, from the next night on."""
    _do("unfreeze", model, reason, dry_run=dry_run, as_json=as_json)


@commands.command(rich_help_panel=PANEL, epilog="Example: tiltyard pin churn --to 2 --reason 'audited as it is'")
def pin(
    model: Model,
    reason: Reason,
    to: Annotated[
        str | None, typer.Option("--to", metavar="N|default", help="Which version. Default: the one in service.")
    ] = None,
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Let one version serve until it is unpinned, whatever the gate says. The gate goes on judging, and training."""
    _do("pin", model, reason, to=to, dry_run=dry_run, as_json=as_json)


@commands.command(rich_help_panel=PANEL, epilog="Example: tiltyard unpin churn --reason 'the audit is over'")
def unpin(model: Model, reason: Reason, dry_run: DryRun = False, as_json: Json = False) -> None:
    """Let the gate decide again. The pinned version stays in service until something better has earned its place."""
    _do("unpin", model, reason, dry_run=dry_run, as_json=as_json)


@commands.command(rich_help_panel=PANEL, epilog="Example: tiltyard retire churn --reason 'nobody reads it any more'")
def retire(model: Model, reason: Reason, dry_run: DryRun = False, as_json: Json = False) -> None:
    """Take a model out of work: its safe default answers, nothing trains, scores or tells of it. Its history stays."""
    _do("retire", model, reason, dry_run=dry_run, as_json=as_json)


@commands.command(
    rich_help_panel=PANEL, epilog="Example: tiltyard unretire churn --reason 'the shop asks for it again'"
)
def unretire(model: Model, reason: Reason, dry_run: DryRun = False, as_json: Json = False) -> None:
    """Bring a retired model back, with the champion that it had."""
    _do("unretire", model, reason, dry_run=dry_run, as_json=as_json)


@operations.callback(invoke_without_command=True, epilog="Example: tiltyard operations --json")
def list_operations(context: typer.Context, as_json: Json = False) -> None:
    """List what was done by hand, or asked for, of all models: by whom, when, why, and what came of it."""
    if context.invoked_subcommand:
        return
    from tiltyard import rails
    from tiltyard.judge import operate

    with rails.opened() as opened:
        found = operate.listing(opened)
    emit(found, as_json, lambda: say(_listed(found)))


@operations.command("approve", epilog="Example: tiltyard operations approve 12")
def approve(
    number: Annotated[int, typer.Argument(help="Number of the operation, as the list has it.", metavar="NUMBER")],
    as_json: Json = False,
) -> None:
    """Confirm, as a second person, what somebody else has asked for. Whoever asked cannot."""
    from tiltyard import rails
    from tiltyard.judge import operate

    with rails.opened() as opened:
        done = operate.approve(opened, number, by=options.user(), now=clock.now())
    emit(done, as_json, lambda: say(done.sentence))


@operations.command("refuse", epilog="Example: tiltyard operations refuse 12 --reason 'it has mended itself'")
def refuse(
    number: Annotated[int, typer.Argument(help="Number of the operation, as the list has it.", metavar="NUMBER")],
    reason: Reason,
    as_json: Json = False,
) -> None:
    """Refuse what waits for a second person; whoever asked takes it back by this."""
    from tiltyard import rails
    from tiltyard.judge import operate

    with rails.opened() as opened:
        done = operate.refuse(opened, number, by=options.user(), reason=reason, now=clock.now())
    emit(done, as_json, lambda: say(done.sentence))


def _do(
    action: "OperationAction", model: str, reason: str, *, to: str | None = None, dry_run: bool, as_json: bool
) -> None:
    from tiltyard import rails
    from tiltyard.judge import operate

    spec, target = options.spec(model), operate.target(to)
    with rails.opened() as opened:
        done: Operated = operate.request(
            opened,
            spec,
            action,
            to=target,
            reason=reason,
            by=options.user(),
            source="command line",
            now=clock.now(),
            dry_run=dry_run,
        )
    emit(done, as_json, lambda: say(done.sentence))


def _listed(found: "Sequence[Operation]") -> str:
    from tiltyard import operating

    lines, now = [], clock.now()
    for one in found:
        state = one.state(now)
        how = {
            "done": f"since the night of {one.night}",
            "waiting": f"waits for a second person until {one.until:%Y-%m-%d %H:%M} UTC" if one.until else "",
            "refused": f"refused by {one.decided_by}: {one.answer}",
            "expired": "nobody confirmed it in time, which is a no",
        }[state]
        second = f" and {one.decided_by}" if one.is_done and one.decided_by else ""
        lines.append(
            f"{one.id:>4} {one.requested_at:%Y-%m-%d %H:%M} {operating.what(one)}, by {one.requested_by}{second}: "
            f"{one.reason.rstrip('.')}; {how}"
        )
    return "\n".join(lines) or "nothing was ever done by hand"
