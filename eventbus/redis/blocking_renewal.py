"""Leases renewed from a thread: a blocking connection of its own, opened when it is needed."""

from collections.abc import Callable, Sequence
from urllib.parse import urlsplit

from redis import Redis
from redis.backoff import NoBackoff
from redis.exceptions import MovedError, NoScriptError, RedisError
from redis.retry import Retry

from eventbus.contract.delivery import Delivery
from eventbus.errors import Unavailable
from eventbus.process.open_files import exhausted
from eventbus.redis.address import Place
from eventbus.redis.links import Command, key_of
from eventbus.redis.router import Router
from eventbus.redis.scripts import by_text

TIMEOUT = 1.0  # seconds for connecting, and for each reply


class Keeper:
    """See eventbus.contract.transport.LeaseKeeper. `renewals` makes the commands that renew deliveries; it touches no
    state."""

    def __init__(self, router: Router, renewals: Callable[[Sequence[Delivery]], list[Command]]) -> None:
        self._router = router
        self._renewals = renewals
        self._clients: dict[str, Redis] = {}  # by the URL of the server

    def renew(self, deliveries: Sequence[Delivery]) -> None:
        asked = [(self._router.url_of(str(key_of(command))), command) for command in self._renewals(deliveries)]
        replies = self._execute(asked)
        again = [self._again(url, command, reply) for (url, command), reply in zip(asked, replies, strict=True)]
        replies += self._execute([each for each in again if each is not None])
        for reply in replies:
            if isinstance(reply, (RedisError, OSError)) and not isinstance(reply, (NoScriptError, MovedError)):
                self.close()  # it may be the primary no more
                raise Unavailable(self._router.where.name, exhausted(reply) or str(reply)) from reply

    def _again(self, url: str, command: Command, reply: object) -> tuple[str, Command] | None:
        """What was refused because it went to the wrong server, or to one that does not know the script."""
        if isinstance(reply, MovedError):
            host = reply.host or str(urlsplit(url).hostname)  # a node may not know that of the other
            return self._router.url_at(Place(host, reply.port)), by_text(command)
        return (url, by_text(command)) if isinstance(reply, NoScriptError) else None

    def _execute(self, asked: Sequence[tuple[str, Command]]) -> list[object]:
        """To each server all in one write; replies in order, a refusal in its place, or why one did not answer: the
        others are asked all the same."""
        replies: list[object] = [None] * len(asked)
        for url in dict.fromkeys(url for url, _ in asked):
            mine = [i for i, (where, _) in enumerate(asked) if where == url]
            pipeline = self._client(url).pipeline(transaction=False)
            for i in mine:
                pipeline.execute_command(*asked[i][1])  # type: ignore[no-untyped-call]  # redis-py leaves it untyped
            try:
                told = pipeline.execute(raise_on_error=False)
            except (RedisError, OSError) as error:
                told = [error] * len(mine)
            for i, reply in zip(mine, told, strict=True):
                replies[i] = reply
        return replies

    def _client(self, url: str) -> Redis:
        if url not in self._clients:
            self._clients[url] = Redis.from_url(
                url,
                protocol=2,
                driver_info=None,
                client_name="eventbus-lease",
                socket_timeout=TIMEOUT,
                socket_connect_timeout=TIMEOUT,
                retry=Retry(NoBackoff(), 0),
            )
        return self._clients[url]

    def close(self) -> None:
        clients, self._clients = self._clients, {}
        for client in clients.values():
            client.close()
