-- Done, for entries with a past: their records go with them.
-- KEYS[1] stream  KEYS[2] retry  KEYS[3] failures  KEYS[4] crashes
-- ARGV[1] group  ARGV[2…] entry ids
-- Returns how many were pending.
local done = redis.call('XACK', KEYS[1], ARGV[1], unpack(ARGV, 2))
redis.call('ZREM', KEYS[2], unpack(ARGV, 2))
redis.call('HDEL', KEYS[3], unpack(ARGV, 2))
redis.call('HDEL', KEYS[4], unpack(ARGV, 2))
return done
