"""Conversation ids that say whose they are.

A client may go on with a conversation before anything of it is written down: its first message is in Redis, and the
worker that makes the row comes later. So an id that we make tells by itself to which user it belongs: half of it is a
digest of the other half, the organization and the user. There is no secret in it, and none is needed: a user who makes
such an id for himself has begun a conversation of his own, and cannot make somebody else's id his.
"""

import os
from hashlib import blake2b
from uuid import UUID


def begin(organization: str, user: str, seed: str | None = None) -> UUID:
    """A new conversation of this user. With a seed it is always the same one: for example, one for a phone number."""
    head = os.urandom(8) if seed is None else blake2b(seed.encode(), digest_size=8).digest()
    return _whole(head, organization, user)


def belongs(conversation: UUID, organization: str, user: str) -> bool:
    """Whether `begin` made the id for this user. If not, the conversation may still be his: the rows tell."""
    return conversation == _whole(conversation.bytes[:8], organization, user)


def _whole(head: bytes, organization: str, user: str) -> UUID:
    """Version 8 (RFC 9562, 5.8): bits of our own but for version and variant."""
    head = head[:6] + bytes([0x80 | head[6] & 0x0F]) + head[7:]
    owner = f"{len(organization)}:{organization}{user}".encode()
    tail = blake2b(head + owner, digest_size=8).digest()
    return UUID(bytes=head + bytes([0x80 | tail[0] & 0x3F]) + tail[1:])
