"""Our key pair, by which push services know the sender (VAPID, RFC 8292)."""

import time
from functools import lru_cache
from typing import Any

from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from py_vapid import Vapid  # type: ignore[import-untyped]  # it has no types
from py_vapid.utils import b64urlencode  # type: ignore[import-untyped]
from yarl import URL

from eventbus import Reject
from handlers.partners.services import Services

LIFETIME = 12 * 3_600  # seconds that a header is valid; services accept a day at the most


def key_of(services: Services) -> Any:
    """A py_vapid.Vapid, which has no types. Raises Reject if no key is configured, or the text is no key."""
    [private] = services.require("Web Push", "push_vapid_private_key")
    return _read(private)


@lru_cache(8)
def _read(private: str) -> Any:
    try:
        return Vapid.from_pem(private.encode()) if "-----BEGIN" in private else Vapid.from_string(private)
    except Exception:  # noqa: BLE001 - many kinds, which all mean that it is no key; none may show it
        raise Reject(
            "PUSH_VAPID_PRIVATE_KEY is no key of P-256: 32 bytes in base64url, DER in base64url, or PEM"
        ) from None


def public_key(services: Services) -> str:
    """The public key as browsers want it: the uncompressed point in base64url. Raises as `key_of`."""
    point = key_of(services).public_key.public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
    encoded: str = b64urlencode(point)
    return encoded


def authorization(services: Services, endpoint: str) -> str:
    """The header for one push service. `sub` is where its operators may write: EMAIL_FROM; Apple wants a real one."""
    url = URL(endpoint)
    port = "" if url.is_default_port() else f":{url.port}"
    claims = {
        "aud": f"{url.scheme}://{url.raw_host}{port}",
        "exp": int(time.time()) + LIFETIME,
        "sub": f"mailto:{services.email_from or 'postmaster@localhost'}",
    }
    header: str = key_of(services).sign(claims)["Authorization"]
    return header
