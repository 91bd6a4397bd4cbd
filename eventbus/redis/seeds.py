"""Some nodes of a cluster, from which all others are learned.

redis+cluster://[user:password@]host[:port],host[:port],…[/db][?…]

User, password and options are those of every node. `rediss+cluster://` is TLS to all of them.
"""

from collections.abc import Callable, Sequence
from urllib.parse import urlsplit

from eventbus.contract.inspection import Finding
from eventbus.errors import ConfigurationError, hide_password
from eventbus.redis.address import Address

SCHEMES = ("redis+cluster", "rediss+cluster")


class Seeds:
    """Raises ConfigurationError for a URL that does not name nodes of a cluster."""

    moves = 0

    def __init__(self, url: str) -> None:
        try:
            parts = urlsplit(url)
        except ValueError:  # brackets that do not match
            raise _not_named(url) from None
        login, at, hosts = parts.netloc.rpartition("@")
        if not all(hosts.split(",")):
            raise _not_named(url)
        scheme = parts.scheme.partition("+")[0]
        self.seeds: Sequence[Address] = [
            Address(parts._replace(scheme=scheme, netloc=f"{login}{at}{host}").geturl()) for host in hosts.split(",")
        ]
        self.name = f"the Redis cluster of {hosts}"
        self._turn = -1

    @property
    def database(self) -> int:
        return self.seeds[0].database

    @property
    def url(self) -> str:
        """Of the first."""
        return self.seeds[0].url

    async def find(self) -> Address:
        """One after the other: whoever asks again did not reach the one before."""
        self._turn += 1
        return self.seeds[self._turn % len(self.seeds)]

    async def watch(self, moved: Callable[[], None]) -> None:
        """They stay where they are; where the keys go, eventbus.redis.cluster watches."""

    async def examine(self) -> list[Finding]:
        """Nobody beside the nodes themselves has to know anything."""
        return []


def _not_named(url: str) -> ConfigurationError:
    return ConfigurationError(
        f"{hide_password(url)!r} does not name nodes of a cluster: "
        "redis+cluster://host:port,host:port/db, for example redis+cluster://a:6379,b:6379/0"
    )
