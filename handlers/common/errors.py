"""Why a service refuses what it was asked to do. The gateway turns these into problems; nothing was written.

Refused
├── NotFound    there is no such object in this organization (or, where objects are a user's own, for this user)
├── Conflict    the object's present state does not allow it
└── Invalid     a field names something that cannot be
"""


class Refused(Exception):
    """Root of the tree."""


class NotFound(Refused):
    """`kind` is what was looked for: lead, task, …"""

    def __init__(self, kind: str) -> None:
        super().__init__(f"there is no such {kind}")


class Conflict(Refused):
    """The object's present state does not allow it."""


class Invalid(Refused):
    """`field` is the name on the wire."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(message)
        self.field = field
