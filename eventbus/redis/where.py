"""What a URL of Redis means."""

from eventbus.redis.address import Address, Where
from eventbus.redis.sentinels import SCHEMES, Sentinels


def locate(url: str) -> Where:
    """One server, or those that sentinels know. Raises ConfigurationError for what is no URL of these."""
    return Sentinels(url) if url.partition("://")[0] in SCHEMES else Address(url)
