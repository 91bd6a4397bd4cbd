"""Signatures by Standard Webhooks (standardwebhooks.com): how a receiver knows that a call is ours and no replay.

webhook-id         the same however often the call is repeated: receivers drop ids that they have seen
webhook-timestamp  seconds since epoch; receivers refuse old calls
webhook-signature  v1,<base64 of HMAC-SHA256 over "id.timestamp.body">
"""

import base64
import binascii
import hashlib
import hmac
import time

PREFIX = "whsec_"


def key_of(secret: str) -> bytes:
    """The key in a secret of the standard's form, `whsec_` and base64; of any other text, its own bytes."""
    if secret.startswith(PREFIX):
        try:
            return base64.b64decode(secret.removeprefix(PREFIX), validate=True)
        except binascii.Error:
            pass
    return secret.encode()


def sign(secret: str, message_id: str, body: bytes, *, at: float | None = None) -> dict[str, str]:
    """The three headers. `at`: seconds since epoch, else now."""
    timestamp = str(int(time.time() if at is None else at))
    signed = b".".join((message_id.encode(), timestamp.encode(), body))
    digest = hmac.new(key_of(secret), signed, hashlib.sha256).digest()
    return {
        "webhook-id": message_id,
        "webhook-timestamp": timestamp,
        "webhook-signature": f"v1,{base64.b64encode(digest).decode()}",
    }
