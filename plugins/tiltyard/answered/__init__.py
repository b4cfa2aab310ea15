"""What becomes of answers that were given online: `request_log` (in the lake) → `arm` (how they turned out) → `skew`
(of their features) → `fallback_audit` (who answered), and `explanation`: a person is asked about a default that lasts.
"""
