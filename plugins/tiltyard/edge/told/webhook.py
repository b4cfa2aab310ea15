"""Messages for other systems: JSON, signed as Standard Webhooks asks (https://www.standardwebhooks.com).

Whoever receives one knows who has sent it, and that it was neither altered nor sent again by somebody else.

A webhook is an address `webhook:NAME` of a route. The variable `NAME` of the environment has its URL, `NAME_SECRET` the
secret that both sides know.
"""

import base64
import binascii
import hashlib
import hmac
import json
import os
from datetime import datetime
from ipaddress import ip_address
from typing import Final
from urllib.parse import urlsplit

from tiltyard.errors import BadInput
from tiltyard.records import Fact, Occasion, Sending

KIND: Final = "webhook:"
"""What the name of such an address begins with."""
TIMEOUT_S = 10.0
"""Seconds that a receiver may take."""
_ENCODED = "whsec_"
"""What a secret begins with that is written in base64."""


def is_one(to: str) -> bool:
    """Whether an address is a webhook, by its name."""
    return to.startswith(KIND)


def document(fact: Fact, occasion: Occasion, title: str, address: str) -> str:
    """What is posted of a fact. `address`: where a browser finds Airflow."""
    body = {"type": f"tiltyard.{fact.kind}.{occasion}", "title": title, **fact.to_json()}
    return json.dumps(body | {"link": f"{address}{fact.link}"}, sort_keys=True)


def post(entry: Sending, now: datetime) -> str | None:
    """Post a sending to its webhook. Why it was not taken, as a sentence without any secret; None where it was.

    Raises BadInput where the environment has no such address or secret, and whatever the library does where it cannot
    be posted. Sent again, it has the same `webhook-id`.
    """
    import httpx

    url, secret = _target(entry.to.removeprefix(KIND))
    body = entry.body.encode()
    number, at = f"msg_{entry.id}", str(int(now.timestamp()))
    headers = {
        "content-type": "application/json",
        "webhook-id": number,
        "webhook-timestamp": at,
        "webhook-signature": signature(secret, number, at, body),
    }
    # Whether it was taken is all that is asked: of what a receiver answers beside it nothing is read.
    with httpx.stream("POST", url, content=body, headers=headers, timeout=TIMEOUT_S, follow_redirects=False) as answer:
        if answer.is_success:
            return None
        return f"{entry.to} answered {answer.status_code}; it is tried again at the next look."


def signature(secret: bytes, number: str, at: str, body: bytes) -> str:
    """HMAC-SHA256 of the message's id, its instant in seconds and its body, joined by dots, in base64."""
    signed = hmac.new(secret, b".".join((number.encode(), at.encode(), body)), hashlib.sha256)
    return f"v1,{base64.b64encode(signed.digest()).decode()}"


def _target(name: str) -> tuple[str, bytes]:
    """The URL and the secret of a webhook. Raises BadInput."""
    url, secret = os.environ.get(name), os.environ.get(f"{name}_SECRET")
    if not url or not secret:
        absent = name if not url else f"{name}_SECRET"
        raise BadInput(f"{absent} is not set; a webhook has its URL in {name} and its secret in {name}_SECRET.")
    try:
        parts = urlsplit(url)
    except ValueError:
        raise BadInput(f"{name} holds no address; write it like https://example.org/hook.") from None
    if parts.scheme != "https" and not (parts.scheme == "http" and _is_loopback(parts.hostname or "")):
        raise BadInput(f"{name} holds no https:// address; http:// is for this machine alone.")
    return url, _bytes(name, secret)


def _bytes(name: str, secret: str) -> bytes:
    if not secret.startswith(_ENCODED):
        return secret.encode()
    try:
        return base64.b64decode(secret.removeprefix(_ENCODED), validate=True)
    except binascii.Error:
        raise BadInput(f"{name}_SECRET begins with {_ENCODED} and is no base64 after it.") from None


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
