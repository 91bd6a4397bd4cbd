"""What a URL of Redis means."""

from eventbus.redis import seeds, sentinels
from eventbus.redis.address import Address, Where


def locate(url: str) -> Where:
    """One server, those that sentinels know, or some nodes of a cluster. Raises ConfigurationError for what is no URL
    of these."""
    scheme = url.partition("://")[0]
    if scheme in sentinels.SCHEMES:
        return sentinels.Sentinels(url)
    return seeds.Seeds(url) if scheme in seeds.SCHEMES else Address(url)
