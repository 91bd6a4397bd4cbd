"""What this process knows of sessions. It is asked while Redis is away, since nobody knows better then.

It tells clients how many events they have sent. What the replay of the spool would refuse, when its client is gone, is
refused at once. Others may have changed a session meanwhile: the replay decides again whatever is decided by this.
"""

from collections import OrderedDict

from eventbus.contract.session_store import SessionId, SessionState

SESSIONS = 10_000  # those that were seen last


class Known:
    def __init__(self) -> None:
        self._states: OrderedDict[SessionId, SessionState] = OrderedDict()

    def note(self, session: SessionId, state: SessionState) -> None:
        self._states[session] = state
        self._states.move_to_end(session)
        if len(self._states) > SESSIONS:
            self._states.popitem(last=False)

    def get(self, session: SessionId) -> SessionState | None:
        return self._states.get(session)
