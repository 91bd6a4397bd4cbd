"""Publishing once for a key, however often it is asked for."""

from typing import Literal, NamedTuple

from eventbus.errors import CodecError
from eventbus.event import Envelope

WINDOW = 3_600.0  # seconds
KEY_LIMIT = 512  # characters
WINDOW_LIMIT = 366 * 86_400.0  # seconds

Dedupe = Literal["keep", "replace"]


class Once(NamedTuple):
    """What a publish with a dedupe key asks for.

    key      what it must be the only one for, within its event type and organization
    window   seconds that the first one keeps the others out, from the time on at which it is due
    replace  an earlier one, by its event id, that is still scheduled makes way
    """

    key: str
    window: float = WINDOW
    replace: bool = False

    def scope(self, envelope: Envelope) -> tuple[str, str, str]:
        """What no second one may have: one organization's keys never meet another's."""
        return envelope.type, envelope.organization or "", self.key


def once(key: str | None, window: float, mode: Dedupe) -> Once | None:
    """None without a key. Raises CodecError if it cannot be one, or the window none."""
    if key is None:
        return None
    if not 0 < len(key) <= KEY_LIMIT or "\0" in key:
        raise CodecError(f"dedupe_key {key[:50]!r} is not 1 to {KEY_LIMIT} characters without a null among them")
    if not 0 < window <= WINDOW_LIMIT:
        raise CodecError(f"dedupe_window {window} is not above 0 and at most {WINDOW_LIMIT:g} seconds")
    if mode not in {"keep", "replace"}:
        raise CodecError(f"dedupe {mode!r} is neither 'keep' (the first one stays) nor 'replace'")
    return Once(key, window, mode == "replace")
