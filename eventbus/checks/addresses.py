"""Addresses of servers as people write them: URLs whose passwords hold what has a meaning in a URL.

A URL is judged here, before a driver sees it. Drivers read `redis://:ab/cd@host` as host '' and port 'ab', and quote
that in their errors, or connect to it. What is said here names no part of a URL; whoever shows one uses `show_url`.
"""

import re
from collections.abc import Collection
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

from eventbus.errors import hide_login, hide_password

ENCODE = (
    "percent-encode what has a meaning in URLs where it stands in a user name or password: "
    "/ as %2F, # as %23, ? as %3F, @ as %40, : as %3A, [ as %5B, ] as %5D, % as %25"
)
MOST_DATABASES = 2**31 - 1  # Redis counts them in an int

_HOST = re.compile(r"(?:\[[^\[\]]*\]|[^\[\]:]*)(?::([0-9]{0,5}))?")
_MAY_HOLD_AT = frozenset(
    ("user", "username", "password", "ssl_password", "sslpassword", "database", "dbname", "application_name")
)
_PORT = re.compile(r"[0-9]{1,5}(?:[/?#,]|$)")


def show_url(url: str) -> str:
    """A URL as it may be shown: without passwords, and without what stands where a port should."""
    named = "://" in url
    shown = hide_password(hide_login(url) if named else hide_login(f"://{url}").removeprefix("://"))
    scheme, separator, rest = shown.rpartition("://")
    host, colon, port = rest.partition(":")
    if "@" in rest or host.startswith("[") or not colon or _PORT.match(port):
        return shown
    return f"{scheme}{separator}{host}:***"


def url_fault(url: str, schemes: Collection[str], *, hosts: bool = False) -> str | None:
    """What is wrong with a server's URL, or None. `hosts`: it may name several, with commas in between, and its user
    name and password hold no '@' (asyncpg looks for the first one, urllib for the last)."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return f"it cannot be read: {ENCODE}"
    if parts.scheme not in schemes or "://" not in url:
        return f"it must begin with {' or '.join(f'{scheme}://' for scheme in schemes)}"
    login, _, place = parts.netloc.rpartition("@")
    if "#" in url or "@" in parts.path or _is_cut_short(parts) or (hosts and "@" in login):
        return ENCODE
    for host in place.split(",") if hosts else [place]:
        found = _HOST.fullmatch(host)
        if found is None or not 0 < int(found[1] or 1) <= 65_535:
            return f"its port must be a number from 1 to 65535; {ENCODE}"
    return None


def database_fault(url: str) -> str | None:
    """What is wrong with the database that a Redis URL, else sound, asks for; or None."""
    parts = urlsplit(url)
    asked = [value for name, value in parse_qsl(parts.query, keep_blank_values=True) if name == "db"]
    if parts.scheme != "unix" and (path := unquote(parts.path).strip("/")):
        asked.append(path)
    for database in asked:
        if not (database.isascii() and database.isdecimal() and int(database[:11]) <= MOST_DATABASES):
            return f"{database[:100]!r} is no database: Redis numbers them, 0 is the first, as in redis://host:6379/0"
    return None


def _is_cut_short(parts: SplitResult) -> bool:
    """Whether the query is none: in `redis://:ab?cd@host`, the '?' belongs to a password."""
    if "@" not in parts.query:
        return False
    values = (option.partition("=")[2] for option in parts.query.split("&") if option.partition("=")[0] in _MAY_HOLD_AT)
    in_options = sum(value.count("@") for value in values)
    might_be_login = ":" in parts.netloc and "@" not in parts.netloc and not parts.path
    return might_be_login or in_options < parts.query.count("@")
