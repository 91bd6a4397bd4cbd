"""Leases renewed from a thread: a blocking connection of its own, opened when it is needed."""

from collections.abc import Callable, Sequence

from redis import Redis
from redis.backoff import NoBackoff
from redis.exceptions import NoScriptError, RedisError
from redis.retry import Retry

from eventbus.contract.delivery import Delivery
from eventbus.errors import Unavailable
from eventbus.process.open_files import exhausted
from eventbus.redis.address import Where
from eventbus.redis.scripts import Command, by_text

TIMEOUT = 1.0  # seconds for connecting, and for each reply


class Keeper:
    """See eventbus.contract.transport.LeaseKeeper. `renewals` makes the commands that renew deliveries; it touches no
    state."""

    def __init__(self, where: Where, renewals: Callable[[Sequence[Delivery]], list[Command]]) -> None:
        self._where = where
        self._url = ""  # where the client is connected
        self._renewals = renewals
        self._client: Redis | None = None

    def renew(self, deliveries: Sequence[Delivery]) -> None:
        commands = self._renewals(deliveries)
        try:
            replies = self._execute(commands)
            unknown = [
                command for command, reply in zip(commands, replies, strict=True) if isinstance(reply, NoScriptError)
            ]
            replies += self._execute([by_text(command) for command in unknown])
        except (RedisError, OSError) as error:
            self.close()
            raise Unavailable(self._where.name, exhausted(error) or str(error)) from error
        for reply in replies:
            if isinstance(reply, RedisError) and not isinstance(reply, NoScriptError):
                self.close()  # it may be the primary no more
                raise Unavailable(self._where.name, str(reply))

    def _execute(self, commands: Sequence[Command]) -> list[object]:
        """All in one write; replies in order, a refusal in its place."""
        if self._url != self._where.url:
            self.close()
        if self._client is None:
            self._url = self._where.url
            self._client = Redis.from_url(
                self._url,
                protocol=2,
                client_name="eventbus-lease",
                socket_timeout=TIMEOUT,
                socket_connect_timeout=TIMEOUT,
                retry=Retry(NoBackoff(), 0),
            )
        pipeline = self._client.pipeline(transaction=False)
        for command in commands:
            pipeline.execute_command(*command)  # type: ignore[no-untyped-call]  # redis-py leaves it untyped
        replies: list[object] = pipeline.execute(raise_on_error=False)
        return replies

    def close(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            client.close()
