"""The maintenance of the lake, portfolio-wide and nightly: rows that a retention lets go, snapshots that nothing refers
to, small files, files that nothing reads, a look at files that nobody has read for long. Before it the ledger is held
against its chain.

Every step is one transaction of the lake, and none needs the one before: killed anywhere, the next run goes on. Nobody
waits for longer than one step: what a build must not meet holds the builds' lock, table by table.
"""

import logging
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta

import duckdb

from tiltyard import damage
from tiltyard.clock import night_closing
from tiltyard.files import remove_abandoned
from tiltyard.prepare import transform
from tiltyard.rails import Rails, recording_its_end
from tiltyard.records import LakeMaintenanceSummary, LakeSize
from tiltyard.stages import StageName
from tiltyard.upkeep import claims, files, holds, retention, scrub
from tiltyard.upkeep.references import kept

STAGE: StageName = "lake_maintenance"
log = logging.getLogger(__name__)


def maintain(rails: Rails, as_of: datetime, *, now: datetime, dry_run: bool = False) -> LakeMaintenanceSummary:
    """Put the lake in order, and record what was done; with `dry_run` only say what would be.

    `now`, the wall clock when it was asked for, tells what is younger than `lake_grace_h` and left alone. Two at once
    are one: the second waits for the first, and hands back what that one has done. Raises BadInput for a retention
    that cannot be.
    """
    night = night_closing(as_of)
    with recording_its_end(rails, STAGE, as_of), rails.lake.exclusive("maintenance"):
        before = rails.ledger.stage_run(LakeMaintenanceSummary, "", night)
        if not dry_run and before and before.status == "done" and before.recorded_at and before.recorded_at >= now:
            return before.summary
        chain = rails.ledger.verify()
        log.info("The head of the ledger's chain is %s.", chain.head)
        for fault in chain.faults:
            log.error("The ledger is not what was put down: %s.", fault)
        summary = _maintain(rails, as_of, now - timedelta(hours=rails.settings.lake_grace_h), dry_run)
        summary = replace(summary, chain_head=chain.head, chain_faults=tuple(map(str, chain.faults)))
        if not dry_run:
            rails.ledger.record_stage("", night, "done", summary)
        return summary


def last_size(rails: Rails) -> tuple[LakeMaintenanceSummary | None, LakeSize]:
    """What the last maintenance did, None before the first; and the lake as it is."""
    run = rails.ledger.last_stage_run(LakeMaintenanceSummary)
    return run.summary if run else None, files.size(rails)


def _maintain(rails: Rails, as_of: datetime, grace: datetime, dry_run: bool) -> LakeMaintenanceSummary:
    began, before, open_holds = time.monotonic(), files.size(rails), holds.open_ones(rails)
    rows_removed = {} if open_holds else retention.let_go(rails, as_of, dry_run=dry_run)
    with transform.alone(rails):  # a batch that is being judged has a snapshot that no record names yet
        reasons = kept(claims.snapshots(rails), claims.references(rails, grace))
        expired = [number for number, why in reasons.items() if not why]
        if not dry_run:
            files.expire(rails, expired)
    merged: dict[str, int] = {}
    rewritten: dict[str, int] = {}
    busy: list[str] = []
    for crowd in files.crowded(rails):
        if dry_run:
            merged |= {crowd.table: crowd.small} if crowd.small > 1 else {}
            rewritten |= {crowd.table: crowd.deletes} if crowd.deletes else {}
            continue
        if not scrub.may_rewrite(rails, crowd.table):
            log.error("%s has a damaged file, and stays as it is.", crowd.table)
            continue
        many = rails.settings.lake_small_files
        steps = [(files.rewrite, rewritten)] if crowd.deletes >= many else []
        for step, counts in (*steps, (files.merge, merged)):
            if not _one_step(rails, step, crowd.table, counts):
                busy.append(crowd.table)
                break
    removed = files.remove_unread(rails, grace, dry_run=dry_run)
    orphans = files.remove_orphans(rails, grace, dry_run=dry_run)
    abandoned = 0
    scrubbed = None
    if not dry_run:
        abandoned = sum(map(remove_abandoned, rails.settings.folders))
        rails.lake.vacuum()
        scrubbed = scrub.scrub_night(rails)
        for one in scrubbed.damaged:
            log.error("A file of %s is damaged, %s: %s. %s", one.table, one.file, one.reason, damage.WAY_OUT)
    return LakeMaintenanceSummary(
        night=night_closing(as_of),
        is_dry_run=dry_run,
        before=before,
        after=files.size(rails),
        expired=len(expired),
        kept=dict(sorted(Counter(reason for why in reasons.values() for reason in why).items())),
        merged=merged,
        rewritten=rewritten,
        busy=tuple(busy),
        removed=removed,
        orphans=orphans,
        abandoned=abandoned,
        scrub=scrubbed,
        rows_removed=rows_removed,
        holds=len(open_holds),
        seconds=round(time.monotonic() - began, 2),
    )


def _one_step(rails: Rails, step: Callable[[Rails, str], int], table: str, counts: dict[str, int]) -> bool:
    """Whether a step came to its end on a table; False where others wrote to it each time, or a file is damaged."""
    try:
        with transform.alone(rails):
            count = step(rails, table)
    except duckdb.TransactionException:
        return False
    except duckdb.Error as error:
        if found := damage.met(rails.settings, rails.ledger, error, [table]):
            log.error("%s stays as it is: %s", table, found)
            return False
        raise
    if count:
        counts[table] = count
    return True
