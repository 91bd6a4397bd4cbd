"""Sessions: events that are collected, and published together or not at all.

    async with bus.session(organization="acme") as session:
        await session.add(LeadCreated(…), key="lead-1")

commands     start, add, commit, roll_back       queries      status, events, active
session      as a program holds it               committing   from the session into the streams
recovery     commits that nobody has ended       contingency  while Redis is away: to the spool (operations)

Where they are kept, and the steps of a commit: eventbus.contract.session_store.
"""

from eventbus.sessions.commands import Answer, Sessions
from eventbus.sessions.contingency import Contingency
from eventbus.sessions.known import Known
from eventbus.sessions.recovery import Recovery
from eventbus.sessions.session import Session, opened

__all__ = ["Answer", "Contingency", "Known", "Recovery", "Session", "Sessions", "opened"]
