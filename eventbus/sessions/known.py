"""What this process knows of sessions: asked while Redis is away, and nobody better is there.

It tells a client how many events he has sent, and refuses at once what would be refused later, when he has forgotten.
Others may have changed a session meanwhile: what is decided by this alone is decided again when the spool is replayed.
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
