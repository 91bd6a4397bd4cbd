"""Publishing once for a key, however often it is asked for."""

from typing import Literal, NamedTuple

from eventbus.checks.validation import flag, seconds, text
from eventbus.errors import WrongValue
from eventbus.event import Envelope

WINDOW = 3_600.0  # seconds
KEY_LIMIT = 512  # characters
SHORTEST_WINDOW = 0.001  # seconds; what servers count in
WINDOW_LIMIT = 366 * 86_400.0  # seconds

Dedupe = Literal["keep", "replace"]


class Once(NamedTuple):
    """What a publish with a dedupe key asks for.

    key      what it must be the only one for, within its event type and organization
    window   seconds that the first event keeps others out, counted from when it is due
    replace  the holder of the key makes way if it is still scheduled, and its event id is the earlier one
    """

    key: str
    window: float = WINDOW
    replace: bool = False

    def scope(self, envelope: Envelope) -> tuple[str, str, str]:
        """What no second event may have as well: the keys of one organization never meet those of another."""
        return envelope.type, envelope.organization or "", self.key


def once(key: str | None, window: float, mode: Dedupe) -> Once | None:
    """What these arguments ask for; None without a key. Raises WrongType or WrongValue if one of them cannot be."""
    if key is None:
        return None
    if mode not in ("keep", "replace"):
        raise WrongValue(f"dedupe {mode!r} is neither 'keep' (the first one stays) nor 'replace'")
    return check_once(Once(key, window, mode == "replace"))


def check_once(wanted: Once) -> Once:
    """What is asked for as it is kept, once checked. Raises WrongType or WrongValue."""
    key, window = text("dedupe_key", wanted.key), seconds("dedupe_window", wanted.window)
    if not 0 < len(key) <= KEY_LIMIT or "\0" in key:  # PostgreSQL cannot hold that
        raise WrongValue(f"dedupe_key {key[:50]!r} is not 1 to {KEY_LIMIT} characters without a null among them")
    if not SHORTEST_WINDOW <= window <= WINDOW_LIMIT:
        raise WrongValue(f"dedupe_window {window:g} is not {SHORTEST_WINDOW:g} to {WINDOW_LIMIT:g} seconds")
    return Once(key, window, flag("replace", wanted.replace))
