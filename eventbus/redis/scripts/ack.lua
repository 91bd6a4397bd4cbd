-- Done, for entries of one lane; records of what they went through go with them.
-- KEYS[1] lane  KEYS[2] retry  KEYS[3] failures  KEYS[4] crashes  KEYS[5] counts (HASH: see accounts.lua)
-- ARGV[1] group  ARGV[2] name of the count  ARGV[3…] entries
-- Returns how many were pending. These are counted, in the same step: one that is acknowledged again, because the reply
-- was lost, is not counted again. The acknowledgement comes first: it needs no memory, and what follows it is let through.
local done
if string.find(ARGV[3], '@', 1, true) then
  done = redis.call('XACK', KEYS[1], ARGV[1], unpack(ids_of({unpack(ARGV, 3)})))
else
  done = redis.call('XACK', KEYS[1], ARGV[1], unpack(ARGV, 3))
end
if done > 0 then
  redis.pcall('HINCRBY', KEYS[5], ARGV[2], done)  -- a key that is of another type does not undo what is acknowledged
end
if redis.call('EXISTS', KEYS[2], KEYS[3], KEYS[4]) > 0 then  -- of most groups there are none at most times
  redis.pcall('ZREM', KEYS[2], unpack(ARGV, 3))
  redis.pcall('HDEL', KEYS[3], unpack(ARGV, 3))
  redis.pcall('HDEL', KEYS[4], unpack(ARGV, 3))
end
return done
