#!lua flags=allow-oom
-- Who may start now under one limit. It may run where memory is used up: without it nothing would be drained.
-- KEYS[1] log of starts (LIST: 'ms count')  KEYS[2] running (ZSET: member by the end of its lease)
-- KEYS[3] line (ZSET: member by the time that it was told to come again)
-- ARGV[1] starts allowed in a span, '' without a rate  ARGV[2] the span in ms
-- ARGV[3] how many may run, '' without a bound  ARGV[4] lease in ms
-- ARGV[5] '1': who is refused gets a place in the line, and nobody overtakes it
-- ARGV[6] ms after which to ask again where all places are taken  ARGV[7…] members
-- Returns for each member -1 if it may start (and is counted), else the ms after which to ask again.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local limit, places = tonumber(ARGV[1]), tonumber(ARGV[3])
-- A handler starts a little after it was let through: its start is counted so much longer.
local span = ARGV[2] + math.min(50, math.floor(ARGV[2] / 20))
local free, opens = math.huge, now

-- Starts are summed up by hundredths of a span, rounded up: few entries tell of any number, and err towards fewer starts.
local step = math.max(1, math.floor(span / 100))
local stamp = string.format('%.0f', math.ceil(now / step) * step)

if limit then
  local head = redis.call('LINDEX', KEYS[1], 0)
  while head and tonumber(string.match(head, '^%d+')) + span <= now do
    redis.call('LPOP', KEYS[1])
    head = redis.call('LINDEX', KEYS[1], 0)
  end
  free = limit
  for _, start in ipairs(redis.call('LRANGE', KEYS[1], 0, -1)) do
    free = free - tonumber(string.match(start, '%d+$'))
  end
  opens = tonumber(head and string.match(head, '^%d+') or stamp) + span
end
if places then
  redis.call('ZREMRANGEBYSCORE', KEYS[2], '-inf', now)
  places = places - redis.call('ZCARD', KEYS[2])
end

local line = 0
if ARGV[5] == '1' then
  redis.call('ZREMRANGEBYSCORE', KEYS[3], '-inf', now - span - 10000)  -- they will not come any more
  line = redis.call('ZCARD', KEYS[3])
end

-- A place behind the last in the line, one start's time further on.
local function stand_in_line(member, told)
  if not told or told <= now then
    local last = redis.call('ZREVRANGE', KEYS[3], 0, 0, 'WITHSCORES')
    told = math.ceil(math.max(tonumber(last[2] or 0), opens - span / limit, now) + span / limit)
    redis.call('ZADD', KEYS[3], told, member)
    line = line + (last[1] == member and 0 or 1)
  end
  redis.call('PEXPIRE', KEYS[3], told - now + span + 10000)
  return told - now
end

local started, answers = 0, {}
for i = 7, #ARGV do
  local member = ARGV[i]
  local told = line > 0 and tonumber(redis.call('ZSCORE', KEYS[3], member) or nil) or nil
  local has_place = places == nil or redis.call('ZSCORE', KEYS[2], member)
  if not has_place and places < 1 then
    answers[#answers + 1] = tonumber(ARGV[6])
  elseif free > 0 and (line == 0 or (told and told <= now)) then
    free, started = free - 1, started + 1
    if told then
      redis.call('ZREM', KEYS[3], member)
      line = line - 1
    end
    if places then
      places = places - (has_place and 0 or 1)
      redis.call('ZADD', KEYS[2], now + ARGV[4], member)
    end
    answers[#answers + 1] = -1
  elseif ARGV[5] == '1' then
    answers[#answers + 1] = stand_in_line(member, told)
  else
    answers[#answers + 1] = math.max(1, opens - now)
  end
end

if limit and started > 0 then
  local last = redis.call('LINDEX', KEYS[1], -1)
  if last and string.match(last, '^%d+') == stamp then
    redis.call('LSET', KEYS[1], -1, stamp .. ' ' .. string.format('%d', string.match(last, '%d+$') + started))
  else
    redis.call('RPUSH', KEYS[1], stamp .. ' ' .. started)
  end
  redis.call('PEXPIRE', KEYS[1], span + step + 1000)
end
if places and started > 0 then
  redis.call('PEXPIRE', KEYS[2], 2 * ARGV[4])
end
return answers
