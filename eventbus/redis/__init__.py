"""Redis Streams as a transport. The only package that imports redis and hiredis."""

from eventbus.redis.transport import RedisTransport

__all__ = ["RedisTransport"]
