-- Write down what became of an event in a tracked group, and tell whoever listens.
-- KEYS[1] its record (HASH)  KEYS[2] active  KEYS[3] completed  KEYS[4] failed (ZSETs: event id by ms)  KEYS[5] counters
-- ARGV[1] event id  ARGV[2] version  ARGV[3] phase  ARGV[4] when the record was written that this corrects, '*' if it is
-- news  ARGV[5] completed to keep  ARGV[6] failed to keep
-- ARGV[7] ms that a record of what has not ended is kept  ARGV[8] ms that one is kept which there is no place for
-- ARGV[9] what stands before an event id in the name of its record  ARGV[10] channel  ARGV[11] number of notices
-- ARGV[12…] notices, then field, value, …
-- Returns 1, or 0 if something later is known already.
local id, version, phase, notices = ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[11])
local known = redis.call('HMGET', KEYS[1], 'version', 'phase', 'written')
if known[1] and known[1] > version or ARGV[4] ~= '*' and ARGV[4] ~= (known[3] or '') then
  return 0
end
local now = string.format('%d', server_ms())
local again = known[1] == version and known[2] == phase  -- sent twice, because a reply was lost
redis.call('HSET', KEYS[1], 'version', version, 'phase', phase, 'written', now, unpack(ARGV, 12 + notices))
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
    redis.call('PEXPIRE', KEYS[1], ARGV[8])
    return
  end
  redis.call('PERSIST', KEYS[1])
  redis.call('ZADD', kept, now, id)
  for _, old in ipairs(redis.call('ZRANGE', kept, 0, -most - 1)) do
    -- Its name is no declared key: in a cluster it may be on its way to another node, and is dropped another time.
    if type(redis.pcall('DEL', ARGV[9] .. old)) == 'number' then
      redis.call('ZREM', kept, old)
    end
  end
end

if phase == 'completed' then
  ended(KEYS[3], tonumber(ARGV[5]), 'completed')
elseif phase == 'failed' then
  ended(KEYS[4], tonumber(ARGV[6]), 'failed')
else
  redis.call('PEXPIRE', KEYS[1], ARGV[7])
  if phase == 'active' then
    redis.call('ZADD', KEYS[2], now, id)
    redis.call('ZREMRANGEBYSCORE', KEYS[2], '-inf', now - ARGV[7])  -- their records are gone
  else
    redis.call('ZREM', KEYS[2], id)
  end
end
for i = 12, 11 + notices do
  redis.call('PUBLISH', ARGV[10], ARGV[i])
end
return 1
