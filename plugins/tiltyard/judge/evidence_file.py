"""The evidence page on disk, and the evidence in words for the question that a person is asked.

The page is drawn when the gate says promote, once, from what the ledger keeps. What a person approves is its SHA-256.
"""

import hashlib
from datetime import datetime
from pathlib import Path

from tiltyard import target, words
from tiltyard.clock import night_closing
from tiltyard.judge import evidence_page
from tiltyard.pages import kit
from tiltyard.rails import Rails
from tiltyard.records import EvidenceRecord, PageFile
from tiltyard.records.evidence import figure
from tiltyard.spec import Spec

FOLDER = "promotion"
"""Where the pages lie, below settings.reports."""


def put(rails: Rails, evidence: EvidenceRecord) -> PageFile:
    """Draw the page of a record and put it into its place, unless there is one.

    Its path ends in the digest's first digits, so that other evidence is another file. A page that is there is left
    alone, whatever is in it: only `promote` says whether it is what was drawn. One that is gone comes back when it
    can be drawn as it was.
    """
    recorded = evidence.page
    if recorded and (rails.settings.reports / recorded.path).exists():
        return recorded
    content = evidence_page.draw(evidence)
    sha256 = hashlib.sha256(content.encode()).hexdigest()
    path = Path(FOLDER, evidence.model, f"{evidence.night}-v{evidence.challenger}-{sha256[:12]}.html")
    target_path = rails.settings.reports / path
    if not target_path.exists() and (recorded is None or recorded.sha256 == sha256):
        kit.save(content, target_path)
    return recorded or PageFile(str(path), sha256)


def faults(rails: Rails, evidence: EvidenceRecord) -> list[str]:
    """Why the page on disk is not the one that an approval is about, as half sentences; empty when it is."""
    page = evidence.page
    if page is None:
        return ["no evidence page was drawn for it"]
    try:
        content = (rails.settings.reports / page.path).read_bytes()
    except OSError:
        return [f"the evidence page {page.path} is gone; clear judge to have it drawn again"]
    if hashlib.sha256(content).hexdigest() != page.sha256:
        return [f"the evidence page {page.path} was changed; delete it and clear judge to have it drawn again"]
    return []


def markdown(rails: Rails, spec: Spec, as_of: datetime, challenger: int, link: str = "") -> str:
    """The evidence behind the night's recorded decision on a challenger, for the person who is asked: short, so that
    the buttons below it are in sight. What stands in the way is named, all else is on the page.

    `link` is where the evidence page is served.
    """
    decision = rails.ledger.decision(spec.name, night_closing(as_of), challenger)
    evidence = decision.evidence
    metric = target.at_start(target.METRICS[evidence.metric])
    lines = [
        f"The gate says **{decision.verdict}** for {spec.name} version {challenger} against {evidence.against}, "
        f"night of {evidence.night}.",
        "",
        f"{metric} (lower is better) on the same {evidence.matured} matured rows of {evidence.nights} nights in "
        f"shadow: challenger {_cell(evidence.loss_challenger)}, "
        f"{evidence.against} {_cell(evidence.loss_champion)}. "
        f"{evidence.immature} rows are not matured and were not looked at.",
        "",
        *([f"**[Look at the evidence page]({link})** before you answer: it is what you approve.", ""] if link else []),
    ]
    open_ones = [criterion for criterion in evidence.criteria if criterion.status != "pass"]
    met = len(evidence.criteria) - len(open_ones)
    lines.append(f"Criteria that are met: {met} of {len(evidence.criteria)}.")
    for criterion in open_ones:
        lines.append(f"- {words.markdown(criterion.name)}: {words.markdown(criterion.reason)}")
    return "\n".join([*lines, "", f"Evidence: `{evidence.bound}`"])


def _cell(value: int | float | str | None) -> str:
    return figure(value) if isinstance(value, float) or value is None else str(value)
