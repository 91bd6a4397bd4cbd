"""Browsers that get pushes: keys of the test's own, and what comes out when they decrypt."""

from base64 import urlsafe_b64encode
from typing import Any, NamedTuple

import http_ece  # type: ignore[import-untyped]  # it has no types
import orjson
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat


def encode(raw: bytes) -> str:
    return urlsafe_b64encode(raw).decode().rstrip("=")


class Browser(NamedTuple):
    endpoint: str
    key: ec.EllipticCurvePrivateKey
    secret: bytes

    @property
    def subscription(self) -> dict[str, Any]:
        """As PushSubscription.toJSON() has it."""
        point = self.key.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
        keys = {"p256dh": encode(point), "auth": encode(self.secret)}
        return {"endpoint": self.endpoint, "expirationTime": None, "keys": keys}

    def read(self, body: bytes) -> Any:
        return orjson.loads(http_ece.decrypt(body, private_key=self.key, auth_secret=self.secret, version="aes128gcm"))


def browser(endpoint: str, secret: bytes = b"0123456789abcdef") -> Browser:
    return Browser(endpoint, ec.generate_private_key(ec.SECP256R1()), secret)


def private_key() -> str:
    """A VAPID key pair, as `web-push generate-vapid-keys` prints the private half."""
    number = ec.generate_private_key(ec.SECP256R1()).private_numbers().private_value
    return encode(number.to_bytes(32, "big"))
