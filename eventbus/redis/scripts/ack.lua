-- Done, for entries of one lane that have a past: their records go with them.
-- KEYS[1] lane  KEYS[2] retry  KEYS[3] failures  KEYS[4] crashes
-- ARGV[1] group  ARGV[2…] entries
-- Returns how many were pending.
local entries = {unpack(ARGV, 2)}
local done = redis.call('XACK', KEYS[1], ARGV[1], unpack(ids_of(entries)))
redis.call('ZREM', KEYS[2], unpack(entries))
redis.call('HDEL', KEYS[3], unpack(entries))
redis.call('HDEL', KEYS[4], unpack(entries))
return done
