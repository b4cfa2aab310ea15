"""A champion by decree: with the decision that a promotion has to follow from, so that it is served and holds."""

from tiltyard.ledger import Ledger
from tiltyard.records import Decision, EvidenceRecord, Promotion


def promote(ledger: Ledger, claimed: Promotion) -> bool:
    """As the gate would have done it on that night. Whether nobody was first."""
    about = {
        "model": claimed.model,
        "night": claimed.night,
        "challenger": claimed.version,
        "champion": claimed.replaced,
    }
    evidence = EvidenceRecord(**about).signed("promote")
    ledger.add_decision(Decision(**about, verdict="promote", reasons=("By decree.",), evidence=evidence))
    return ledger.claim_promotion(claimed)
