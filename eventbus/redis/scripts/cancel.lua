-- Take back what is scheduled. Of this and a promotion, one finds it.
-- KEYS[1] due (ZSET: event id by ms)  KEYS[2] scheduled (HASH: event id to packed fields)  ARGV[1] event id
-- Returns 1, or 0 if it is not scheduled.
redis.call('HDEL', KEYS[2], ARGV[1])
return redis.call('ZREM', KEYS[1], ARGV[1])
