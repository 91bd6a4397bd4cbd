"""Redis Streams as a transport. The only package that imports redis and hiredis."""

from eventbus.redis.transport import COMMAND_TIMEOUT, RedisTransport

__all__ = ["COMMAND_TIMEOUT", "RedisTransport"]
