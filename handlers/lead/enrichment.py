"""What can be known of a lead beyond what it said: asked of a provider, or derived from its address and number.

With ENRICHMENT_URL, the lead's fields that are looked at are posted there with an `Idempotency-Key`, for example

    {"leadId": "…", "organizationId": "acme", "name": "Lea", "email": "lea@example.com", "phone": "+49 30 1234567",
     "company": null}

The answer is a JSON object, which is kept as it is. Without ENRICHMENT_URL, this is derived:

    {"email": {"domain": "example.com", "kind": "company"},
     "phone": {"number": "+49301234567", "callingCode": 49, "country": "DE", "kind": "FIXED_LINE",
               "timeZones": ["Europe/Berlin"]}}

`kind` of an e-mail is `company` or `free`, that of a number a name of phonenumbers.PhoneNumberType; a mobile number has
a `carrier` if its prefix tells one. From a number without a country's prefix, or that nobody can have, nothing is
derived. (The city of a number could be told as well: its tables would cost each worker 100 MB.)

What is found is merged over what was there, with `source` (`provider` or `derived`) and `enrichedAt`.
"""

import re
from collections.abc import Collection, Mapping
from datetime import datetime
from typing import Any

import aiohttp
import orjson
import phonenumbers
from phonenumbers import PhoneNumberType, carrier, timezone

from eventbus import Reject
from handlers.lead.score import FREE_MAIL
from handlers.partners.calls import call

FIELDS = ("name", "email", "phone", "company")  # of the lead, which may be looked at
PROVIDER, DERIVED = "provider", "derived"
LARGEST = 64 * 1024  # bytes of JSON that are kept of a provider's answer

Found = dict[str, Any]  # JSON

_KINDS = {value: name for name, value in vars(PhoneNumberType).items() if isinstance(value, int)}
_NUL = re.compile(rb"(?<!\\)(?:\\\\)*\\u0000")  # which PostgreSQL does not keep


def derive(lead: Mapping[str, Any], fields: Collection[str]) -> Found:
    """What was derived, by field of the lead; None for a field that tells nothing."""
    found: Found = {}
    if "email" in fields:
        found["email"] = _of_email(lead["email"])
    if "phone" in fields:
        found["phone"] = _of_phone(lead["phone"])
    return found


def _of_email(email: str | None) -> Found | None:
    if not email:
        return None
    domain = email.rpartition("@")[2].lower()
    return {"domain": domain, "kind": "free" if domain in FREE_MAIL else "company"}


def _of_phone(phone: str | None) -> Found | None:
    try:
        number = phonenumbers.parse(phone or "", None)
    except phonenumbers.NumberParseException:
        return None
    if not phonenumbers.is_valid_number(number):
        return None
    found = {
        "number": phonenumbers.format_number(number, phonenumbers.PhoneNumberFormat.E164),
        "callingCode": number.country_code,
        "country": phonenumbers.region_code_for_number(number),
        "kind": _KINDS[phonenumbers.number_type(number)],
        "carrier": carrier.name_for_number(number, "en") or None,
        "timeZones": list(timezone.time_zones_for_number(number)),
    }
    return {name: value for name, value in found.items() if value is not None}


async def ask_provider(
    session: aiohttp.ClientSession, url: str, lead: Mapping[str, Any], fields: Collection[str], *, key: str
) -> Found:
    """Raises Unreachable, RetryLater, Reject as `call` does, and Reject for an answer that cannot be kept."""
    asked = {"leadId": str(lead["id"]), "organizationId": lead["organization_id"]}
    asked |= {field: lead[field] for field in FIELDS if field in fields}
    answer = await call(session, "the enrichment", "POST", url, json=asked, headers={"Idempotency-Key": key})
    found = answer.json()
    if not isinstance(found, dict):
        raise Reject(f"the enrichment answered with JSON that is no object, but {type(found).__name__}")
    kept = orjson.dumps(found)
    if len(kept) > LARGEST:
        raise Reject(f"the enrichment answered with {len(kept)} bytes of JSON, and {LARGEST} are kept")
    if _NUL.search(kept):
        raise Reject("the enrichment answered with a NUL character, which PostgreSQL does not keep")
    return found


def merge(before: Found | None, found: Found, *, source: str, at: datetime) -> Found:
    """Each value of `found` replaces the one before; None takes that away."""
    after = (before or {}) | found | {"source": source, "enrichedAt": at.isoformat().replace("+00:00", "Z")}
    return {name: value for name, value in after.items() if value is not None}
