#!lua
-- Takes from a quota that comes back as its window slides on: at most so many in any span.
-- KEYS[1] what was taken (LIST: 'ms count'), in steps of a hundredth of the span, rounded up, the oldest first
-- ARGV[1] how many a span has  ARGV[2] the span in ms  ARGV[3] how many are wanted
-- Returns how many were taken, how many are left, and the ms until there is more (0 while all are there).
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local limit, span, wanted = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local step = math.max(1, math.floor(span / 100))
local stamp = string.format('%.0f', math.ceil(now / step) * step)

local head = redis.call('LINDEX', KEYS[1], 0)
while head and tonumber(string.match(head, '^%d+')) + span <= now do
  redis.call('LPOP', KEYS[1])
  head = redis.call('LINDEX', KEYS[1], 0)
end
local free, last = limit, nil
for _, taken in ipairs(redis.call('LRANGE', KEYS[1], 0, -1)) do
  free, last = free - tonumber(string.match(taken, '%d+$')), taken
end

local granted = math.max(0, math.min(free, wanted))
if granted > 0 then
  if last and string.match(last, '^%d+') == stamp then
    local count = string.match(last, '%d+$') + granted
    redis.call('LSET', KEYS[1], -1, stamp .. ' ' .. string.format('%.0f', count))
  else
    redis.call('RPUSH', KEYS[1], stamp .. ' ' .. string.format('%.0f', granted))
  end
  redis.call('PEXPIRE', KEYS[1], span + step)
end
local opens = 0
if head or granted > 0 then
  opens = math.max(1, tonumber(string.match(head or stamp, '^%d+')) + span - now)
end
return {granted, math.max(0, free - granted), opens}
