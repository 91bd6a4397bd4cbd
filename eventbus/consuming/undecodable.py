"""An event that cannot be decoded: no further attempt would help, so it becomes a dead letter at once."""

from eventbus.contract.delivery import Dead, Delivery, Failure
from eventbus.errors import CodecError
from eventbus.process.safe_logging import get_logger

log = get_logger("eventbus.executor")


def bury_undecodable(delivery: Delivery, error: CodecError) -> Dead:
    """The outcome of a delivery whose fields are no envelope, or no event that its group's handlers know. Logs it."""
    log.error("dead letter", **delivery.named(), reason=str(error))
    return Dead(Failure(f"{type(error).__name__}: {error}"), attempts=delivery.failures)
