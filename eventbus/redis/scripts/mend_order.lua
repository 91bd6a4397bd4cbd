-- Let go on what waits behind an entry that somebody else has settled or removed, in an ordered group. Each call looks at
-- some of those that wait.
-- KEYS[1…10] lanes  KEYS[11] retry (ZSET: entry by ms)  KEYS[12] order (HASH: see ordering.lua; 'sweep' is where to go on)
-- ARGV[1] group  ARGV[2] the consumer under which entries rest  ARGV[3] how many are looked at
-- Returns how many go on: they are due now.
local group, parked = ARGV[1], ARGV[2]
local mended, now = 0, server_ms()

local function pending(entry)
  local id = id_of(entry)
  local found = redis.call('XPENDING', KEYS[lane_of(entry)], group, id, id, 1)[1]
  return found and found[2]
end

local function go_on(entry)
  redis.call('ZADD', KEYS[11], 'NX', now, entry)
  redis.call('XCLAIM', KEYS[lane_of(entry)], group, parked, 0, id_of(entry), 'JUSTID')
  mended = mended + 1
end

if redis.call('EXISTS', KEYS[12]) == 0 then  -- lost: line them up anew, the oldest first
  for lane = 1, 10 do
    local waiting = redis.pcall('XPENDING', KEYS[lane], group, '-', '+', ARGV[3], QUEUED)
    for _, held in ipairs(waiting.err and {} or waiting) do
      local found = redis.call('XRANGE', KEYS[lane], held[1], held[1])[1]
      if not found or line_up(KEYS[12], KEYS[lane], group, named(lane, held[1]), found[2]) then
        go_on(named(lane, held[1]))
      end
    end
  end
  return mended
end

local page = redis.call('HSCAN', KEYS[12], redis.call('HGET', KEYS[12], 'sweep') or '0', 'MATCH', 'n:*', 'COUNT', ARGV[3])
if page[1] == '0' then
  redis.call('HDEL', KEYS[12], 'sweep')
else
  redis.call('HSET', KEYS[12], 'sweep', page[1])
end
for i = 1, #page[2], 2 do
  local before, entry = string.sub(page[2][i], 3), page[2][i + 1]
  if not pending(before) then
    redis.call('HDEL', KEYS[12], 'n:' .. before, 'k:' .. before)
    if pending(entry) == QUEUED then
      go_on(entry)
    end
  end
end
return mended
