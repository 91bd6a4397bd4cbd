"""Crash points: where a test wants this process to die, at an exact boundary between two commands.

EVENTBUS_CRASH=consumer.read kills it with SIGKILL the first time that it gets there, consumer.read:3 the third time.
Unset, as it always is outside of tests, a point is an empty function.

    publish.stored      an append was confirmed, its receipt not yet returned
    consumer.read       events were read, no handler has started
    consumer.reclaimed  pending entries were taken over, no handler has started
    consumer.settle     outcomes have gathered, none is sent
    consumer.settled    outcomes were sent and confirmed
    recurrence.fired    a firing of a recurring function was stored, or found to be
    inbox.commit        a handler's transaction is about to commit
    inbox.committed     it has committed
    relay.appended      outbox rows are in their streams, not yet marked
    spool.rejected      bad lines of the spool were set aside, not yet marked
    spool.replayed      a batch of the spool was appended, not yet marked
    spool.marked        it is marked
    session.registered  a commit was noted for those who recover it, the session is still ACTIVE
    session.committing  it is COMMITTING, nothing is published
    session.appended    a batch of its events is in its stream
    session.published   all are, and it is not COMMITTED
    session.committed   it is COMMITTED, and still noted
    delivery.sent       the service outside has confirmed a message, its record does not say so yet
    delivery.recorded   the record says so
    import.committed    a page of a WhatsApp history and its cursor were committed
    history.record      a batch is about to be written to the event store
    history.recorded    it is written, nothing is acknowledged
    gateway.committed   a request's transaction has committed, its answer is not sent
"""

import os
import signal

_name, _, _times = os.environ.get("EVENTBUS_CRASH", "").partition(":")
_left = int(_times or 1)


def _point(name: str) -> None:
    """Die here if the environment says so."""
    global _left  # noqa: PLW0603 - one process dies once
    if name != _name:
        return
    _left -= 1
    if _left == 0:
        os.kill(os.getpid(), signal.SIGKILL)


def _nowhere(_name: str) -> None:
    return


point = _point if _name else _nowhere
