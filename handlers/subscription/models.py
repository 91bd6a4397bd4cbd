"""Push subscriptions on the wire, as a browser's PushSubscription.toJSON() has them."""

import binascii
import re
from base64 import urlsafe_b64decode
from datetime import datetime
from typing import Annotated
from uuid import UUID

from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePublicKey
from pydantic import AfterValidator, Field

from handlers.common.fields import Answer, Request

_BASE64URL = re.compile(r"[A-Za-z0-9_-]+={0,2}")
AUTH_SECRET = 16  # bytes (RFC 8291, 3.2)


def decode(text: str) -> bytes:
    """base64url, with or without its padding. Raises ValueError."""
    if not _BASE64URL.fullmatch(text):  # the decoder skips other characters
        raise ValueError("is no base64url")
    bare = text.rstrip("=")
    try:
        return urlsafe_b64decode(bare + "=" * (-len(bare) % 4))
    except binascii.Error:
        raise ValueError("is no base64url") from None


def _public_key(text: str) -> str:
    try:
        EllipticCurvePublicKey.from_encoded_point(SECP256R1(), decode(text))
    except ValueError:
        raise ValueError("is no public key of P-256, uncompressed, in base64url") from None
    return text


def _auth(text: str) -> str:
    if len(decode(text)) != AUTH_SECRET:
        raise ValueError(f"must be {AUTH_SECRET} bytes in base64url")
    return text


class Keys(Request):
    p256dh: Annotated[str, Field(max_length=128, alias="p256dh"), AfterValidator(_public_key)]
    auth: Annotated[str, Field(max_length=64), AfterValidator(_auth)]


class NewSubscription(Request):
    """`endpoint`: where the push service takes pushes for this browser. It is a secret between browser and us."""

    endpoint: Annotated[str, Field(max_length=2048)]
    expiration_time: float | None = None
    keys: Keys


class Subscription(Answer):
    id: UUID
    endpoint: str
    created_at: datetime


class PublicKey(Answer):
    """`publicKey`: what a browser's pushManager.subscribe() takes as applicationServerKey."""

    public_key: str
