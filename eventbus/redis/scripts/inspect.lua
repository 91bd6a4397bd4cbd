-- What a stream and its groups hold. Reads only.
-- KEYS[1] due (ZSET)  KEYS[2] dead (stream)  KEYS[3…] the stream's lanes
-- ARGV[1] how many undelivered entries are counted where the server's count (the lag) is unknown
-- Returns {now in ms, scheduled, dead, {lane, …}}, a lane that exists being {length, its oldest entry's id or '', {group, …}}
-- and a group {name, lag or -1, undelivered, oldest undelivered id or '', pending, oldest pending id or '', {consumer, …}}
-- and a consumer {name, pending, idle in ms}.
local time = redis.call('TIME')

local function oldest(lane, start)
  local found = redis.call('XRANGE', lane, start, '+', 'COUNT', 1)
  return found[1] and found[1][1] or ''
end

local function inspect_group(lane, info)
  local after = '(' .. info['last-delivered-id']
  local lag = info.lag or -1
  local undelivered = lag
  if lag < 0 then
    undelivered = #redis.call('XRANGE', lane, after, '+', 'COUNT', ARGV[1])
  end
  local consumers = {}
  for i, flat in ipairs(redis.call('XINFO', 'CONSUMERS', lane, info.name)) do
    local consumer = pairs_of(flat)
    consumers[i] = {consumer.name, consumer.pending, consumer.idle}
  end
  local unacked = info.pending > 0 and redis.call('XPENDING', lane, info.name)[2] or ''
  return {info.name, lag, undelivered, oldest(lane, after), info.pending, unacked, consumers}
end

local lanes = {}
for i = 3, #KEYS do
  local lane = KEYS[i]
  if redis.call('EXISTS', lane) == 1 then
    local groups = {}
    for j, flat in ipairs(redis.call('XINFO', 'GROUPS', lane)) do
      groups[j] = inspect_group(lane, pairs_of(flat))
    end
    lanes[#lanes + 1] = {redis.call('XLEN', lane), oldest(lane, '-'), groups}
  end
end
local now = time[1] * 1000 + math.floor(time[2] / 1000)

-- A key that is of another type holds none; that it is there is told to whoever meets it.
local function size(command, key)
  local found = redis.pcall(command, key)
  return type(found) == 'number' and found or 0
end
return {now, size('ZCARD', KEYS[1]), size('XLEN', KEYS[2]), lanes}
