"""What operators set and all workers know."""

from collections.abc import Mapping
from typing import Protocol


class Controls(Protocol):
    """Names and values; eventbus.operating.control says what they mean."""

    async def control(self, name: str, value: bytes | None) -> bool:
        """Set, or with None remove, what all workers are to know: see eventbus.operating.control. Returns whether it
        was there before."""

    async def controls(self) -> Mapping[str, bytes]:
        """All that is set."""
