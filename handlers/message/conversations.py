"""Conversation ids that say whose they are.

A client may go on with a conversation before anything of it is written down: its first message is in Redis, and the
worker that makes the row comes later. So an id that we make tells by itself to which user it belongs: half of it is a
digest of the other half, the organization and the user. There is no secret in it, and none is needed: who makes an id
of that kind for himself has begun a conversation of his own; an id of somebody else's does not become his.
"""

import os
from hashlib import blake2b
from uuid import UUID


def begin(organization: str, user: str, seed: str | None = None) -> UUID:
    """A new conversation of this user; with a seed always the same one, for example of a phone number's messages."""
    head = os.urandom(8) if seed is None else blake2b(seed.encode(), digest_size=8).digest()
    return _whole(head, organization, user)


def belongs(conversation: UUID, organization: str, user: str) -> bool:
    """Whether it was made by `begin` for this user. One that was not may still be his: his rows know."""
    return conversation == _whole(conversation.bytes[:8], organization, user)


def _whole(head: bytes, organization: str, user: str) -> UUID:
    """Version 8 (RFC 9562, 5.8): bits of our own but for version and variant."""
    head = head[:6] + bytes([0x80 | head[6] & 0x0F]) + head[7:]
    owner = f"{len(organization)}:{organization}{user}".encode()
    tail = blake2b(head + owner, digest_size=8).digest()
    return UUID(bytes=head + bytes([0x80 | tail[0] & 0x3F]) + tail[1:])
