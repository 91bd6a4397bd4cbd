-- Done, for entries of one lane; records of what they went through go with them.
-- KEYS[1] lane  KEYS[2] retry  KEYS[3] failures  KEYS[4] crashes
-- ARGV[1] group  ARGV[2…] entries
-- Returns how many were pending.
local entries = {unpack(ARGV, 2)}
local done = redis.call('XACK', KEYS[1], ARGV[1], unpack(ids_of(entries)))
if redis.call('EXISTS', KEYS[2], KEYS[3], KEYS[4]) > 0 then  -- of most groups there are none at most times
  redis.pcall('ZREM', KEYS[2], unpack(entries))  -- a key that is of another type does not undo what is acknowledged
  redis.pcall('HDEL', KEYS[3], unpack(entries))
  redis.pcall('HDEL', KEYS[4], unpack(entries))
end
return done
