"""Tickets: the way to a WebSocket for a page that would rather not write its token into a URL.

A ticket is good once, for half a minute, at any gateway: it is a row, and to redeem it is to delete the row. Its text
names its organization, because no query looks through those of all organizations, and is otherwise random.
"""

import hashlib
import secrets
import time
from base64 import urlsafe_b64decode, urlsafe_b64encode
from datetime import datetime, timedelta

from eventbus import Transaction
from gateway.callers.auth import Caller
from gateway.http.problems import Problem
from handlers.common.fields import CONTROL, Answer

LIFETIME = timedelta(seconds=30)
RANDOM_BYTES = 24
MAX_TICKET = 1_024  # characters; an organization is 128 at most
PRUNE_BATCH = 20  # expired tickets that are deleted with each new one

_INSERT = """
INSERT INTO ws_tickets (organization, digest, user_id, roles, tier, token_until, expires_at)
VALUES ($1, $2, $3, $4, $5, $6, now() + $7::interval) RETURNING expires_at
"""
_REDEEM = """
DELETE FROM ws_tickets WHERE organization = $1 AND digest = $2
RETURNING user_id, roles, tier, token_until, expires_at > now() AS good
"""
_PRUNE = """
DELETE FROM ws_tickets WHERE ctid = ANY(ARRAY(
    SELECT ctid FROM ws_tickets WHERE expires_at < now() ORDER BY expires_at LIMIT $1 FOR UPDATE SKIP LOCKED
))
"""


class Ticket(Answer):
    """`ticket` goes into `/ws/chat?ticket=…`; `expiresIn` is in seconds."""

    ticket: str
    expires_in: int
    expires_at: datetime


async def issue(tx: Transaction, caller: Caller) -> Ticket:
    """A ticket that lets in whoever has it, as this caller, for as long as the caller's token is good."""
    secret = secrets.token_urlsafe(RANDOM_BYTES)
    await tx.connection.execute(_PRUNE, PRUNE_BATCH)
    expires_at = await tx.connection.fetchval(
        _INSERT,
        caller.organization,
        _digest(secret),
        caller.user,
        sorted(caller.roles),
        caller.tier,
        caller.until,
        LIFETIME,
    )
    organization = urlsafe_b64encode(caller.organization.encode()).decode().rstrip("=")
    return Ticket(ticket=f"{organization}.{secret}", expires_in=int(LIFETIME.total_seconds()), expires_at=expires_at)


async def redeem(tx: Transaction, ticket: str) -> Caller:
    """The caller who got this ticket. Raises Problem(401) if it was redeemed, is too old, or never was issued."""
    organization, secret = _parse(ticket)
    row = await tx.connection.fetchrow(_REDEEM, organization, _digest(secret))
    if row is None or not row["good"] or row["token_until"] <= time.time():
        raise Problem(401, "the ticket is not valid, or no longer")
    return Caller(row["user_id"], organization, frozenset(row["roles"]), row["tier"], row["token_until"])


def _parse(ticket: str) -> tuple[str, str]:
    encoded, _, secret = ticket[: MAX_TICKET + 1].partition(".")
    try:
        organization = urlsafe_b64decode(encoded + "=" * (-len(encoded) % 4)).decode()
    except ValueError:
        organization = ""
    if not organization or not secret or len(ticket) > MAX_TICKET or CONTROL.search(organization):
        raise Problem(401, "the ticket is not valid")
    return organization, secret


def _digest(secret: str) -> bytes:
    return hashlib.sha256(secret.encode()).digest()
