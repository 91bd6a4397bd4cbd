-- Write down what became of an event in a tracked group, and tell whoever listens.
-- KEYS[1] its record (HASH)  KEYS[2] active  KEYS[3] completed  KEYS[4] failed (ZSETs: event id by ms)  KEYS[5] counters
-- ARGV[1] event id  ARGV[2] version  ARGV[3] phase  ARGV[4] completed to keep  ARGV[5] failed to keep
-- ARGV[6] ms that a record of what has not ended is kept  ARGV[7] ms that one is kept which there is no place for
-- ARGV[8] what stands before an event id in the name of its record  ARGV[9] channel  ARGV[10] number of notices
-- ARGV[11…] notices, then field, value, …
-- Returns 1, or 0 if a later delivery of the event is known already.
local id, version, phase, notices = ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[10])
local known = redis.call('HMGET', KEYS[1], 'version', 'phase')
if known[1] and known[1] > version then
  return 0
end
local now = server_ms()
local again = known[1] == version and known[2] == phase  -- sent twice, because a reply was lost
redis.call('HSET', KEYS[1], 'version', version, 'phase', phase, unpack(ARGV, 11 + notices))
if known[2] and known[2] ~= phase then
  redis.call('ZREM', KEYS[3], id)
  redis.call('ZREM', KEYS[4], id)
end

local function ended(kept, most, counter)
  redis.call('ZREM', KEYS[2], id)
  if not again then
    redis.call('HINCRBY', KEYS[5], counter, 1)
  end
  if most == 0 then
    redis.call('PEXPIRE', KEYS[1], ARGV[7])
    return
  end
  redis.call('PERSIST', KEYS[1])
  redis.call('ZADD', kept, now, id)
  for _, old in ipairs(redis.call('ZRANGE', kept, 0, -most - 1)) do
    redis.call('DEL', ARGV[8] .. old)
    redis.call('ZREM', kept, old)
  end
end

if phase == 'completed' then
  ended(KEYS[3], tonumber(ARGV[4]), 'completed')
elseif phase == 'failed' then
  ended(KEYS[4], tonumber(ARGV[5]), 'failed')
else
  redis.call('PEXPIRE', KEYS[1], ARGV[6])
  if phase == 'active' then
    redis.call('ZADD', KEYS[2], now, id)
  else
    redis.call('ZREM', KEYS[2], id)
  end
end
for i = 11, 10 + notices do
  redis.call('PUBLISH', ARGV[9], ARGV[i])
end
return 1
