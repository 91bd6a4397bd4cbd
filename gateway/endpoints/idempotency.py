"""Idempotency-Key: the same POST again answers what the first did, and does nothing.

The answer is stored in the transaction of the effect, so that a gateway which dies after the commit leaves both, and
one which dies before leaves neither. An advisory lock, held to the end of that transaction, lets repeats that
come meanwhile see that the first still runs. A refusal is not stored: nothing was done, and the same key may be tried
again.
"""

import hashlib
import re
from collections.abc import Awaitable, Callable
from contextlib import suppress
from datetime import timedelta
from typing import NamedTuple

import orjson
from aiohttp import web

from eventbus import Connection, Transaction
from gateway.callers.auth import Caller
from gateway.http.problems import Problem
from gateway.http.reply import Reply

HEADER, REPLAYED = "Idempotency-Key", "Idempotency-Replayed"
LIFETIME = timedelta(hours=24)
PRUNE_BATCH = 20  # expired keys that are deleted with each new one: the table cannot grow faster than it is cleared

_SANE = re.compile(r"[\x21-\x7e]{1,255}")
_LOCK = "SELECT pg_try_advisory_xact_lock($1)"
_SELECT = """
SELECT fingerprint, status, headers, body FROM idempotency_keys
WHERE organization = $1 AND user_id = $2 AND method = $3 AND path = $4 AND key = $5 AND expires_at > now()
"""
# The update is for a key that expired and is used again.
_INSERT = """
INSERT INTO idempotency_keys
    (organization, user_id, method, path, key, fingerprint, status, headers, body, expires_at)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, now() + $10::interval)
ON CONFLICT (organization, user_id, method, path, key) DO UPDATE SET
    fingerprint = excluded.fingerprint, status = excluded.status, headers = excluded.headers,
    body = excluded.body, expires_at = excluded.expires_at
"""
_PRUNE = """
DELETE FROM idempotency_keys WHERE ctid = ANY(ARRAY(
    SELECT ctid FROM idempotency_keys WHERE expires_at < now() ORDER BY expires_at LIMIT $1 FOR UPDATE SKIP LOCKED
))
"""


class Scope(NamedTuple):
    """Where a key means something: the same text from another user, or for another path, is another key."""

    organization: str
    user: str
    method: str
    path: str
    key: str

    @property
    def lock(self) -> int:
        """The number of the advisory lock: 64 bits, signed."""
        digest = hashlib.sha256("\0".join(self).encode()).digest()
        return int.from_bytes(digest[:8], "big", signed=True)

    def digest(self, body: bytes) -> str:
        """The same for each repeat of a request: by it, effects outside of the transaction can be recognized."""
        return hashlib.sha256("\0".join(self).encode() + fingerprint(body)).hexdigest()


def scope_of(request: web.Request, caller: Caller, path: str) -> Scope | None:
    """The scope of the request's key; None if it has none. Raises Problem(422) for one that no header should hold."""
    key = request.headers.get(HEADER)
    if key is None:
        return None
    if not _SANE.fullmatch(key):
        error = {"loc": ["header", HEADER], "msg": "must be 1 to 255 visible ASCII characters"}
        raise Problem(422, f"the {HEADER} is not valid", errors=[error])
    return Scope(caller.organization, caller.user, request.method, path, key)


def fingerprint(body: bytes) -> bytes:
    """A hash that is equal for bodies of the same JSON, however they are spaced and ordered."""
    with suppress(orjson.JSONDecodeError, orjson.JSONEncodeError):  # an endpoint that takes no body gets anything
        body = orjson.dumps(orjson.loads(body), option=orjson.OPT_SORT_KEYS)
    return hashlib.sha256(body).digest()


async def once(tx: Transaction, scope: Scope, mark: bytes, act: Callable[[Transaction], Awaitable[Reply]]) -> Reply:
    """`act(tx)`, or what it answered the first time. `mark` is the body's fingerprint.

    Raises Problem(409) while the first still runs, Problem(422) if the first had another body."""
    if not await tx.connection.fetchval(_LOCK, scope.lock):
        raise Problem(409, f"the first request with this {HEADER} is still running", headers={"Retry-After": "1"})
    row = await tx.connection.fetchrow(_SELECT, *scope)
    if row is None:
        reply = await act(tx)
        await _store(tx.connection, scope, mark, reply)
        return reply
    if row["fingerprint"] != mark:
        error = {"loc": ["header", HEADER], "msg": "was used before with another body"}
        raise Problem(422, f"this {HEADER} belongs to another request", errors=[error])
    return Reply(row["status"], {**row["headers"], REPLAYED: "true"}, row["body"].encode())


async def _store(connection: Connection, scope: Scope, mark: bytes, reply: Reply) -> None:
    await connection.execute(_PRUNE, PRUNE_BATCH)
    await connection.execute(_INSERT, *scope, mark, reply.status, dict(reply.headers), reply.body.decode(), LIFETIME)
