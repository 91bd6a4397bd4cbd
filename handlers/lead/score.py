"""How much a lead promises: a number from 0 to 100 that depends on nothing but the lead's own fields."""

from typing import NamedTuple

FREE_MAIL = frozenset(
    {"gmail.com", "googlemail.com", "outlook.com", "hotmail.com", "live.com", "yahoo.com", "icloud.com", "proton.me"}
)
SOURCES = {"REFERRAL": 20, "EVENT": 15, "WEBSITE": 10, "WHATSAPP": 10, "TELEGRAM": 10}


class Profile(NamedTuple):
    """What the score depends on."""

    name: str | None
    email: str | None
    phone: str | None
    company: str | None
    source: str


def score(lead: Profile) -> int:
    """The sum of:

    ============================================== ======
    Fact                                           Points
    ============================================== ======
    has a name                                     10
    has an e-mail address                          20
    ... whose domain is no free mail provider      15
    has a phone number                             20
    names a company                                15
    source REFERRAL                                20
    source EVENT                                   15
    source WEBSITE, WHATSAPP or TELEGRAM           10
    any other source                               0
    ============================================== ======

    A lead that the gateway took in is above 0, since it has a name, an address or a number. 100 takes every fact, and
    the source REFERRAL."""
    return (
        (10 if lead.name else 0)
        + _mail_points(lead.email)
        + (20 if lead.phone else 0)
        + (15 if lead.company else 0)
        + SOURCES.get(lead.source.upper(), 0)
    )


def _mail_points(email: str | None) -> int:
    if not email:
        return 0
    return 20 if email.rpartition("@")[2].lower() in FREE_MAIL else 35
