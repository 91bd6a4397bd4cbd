-- Which events of one priority are stored or scheduled. Reads only.
-- KEYS[1] lane  KEYS[2] due (ZSET: event id by ms)
-- ARGV[1] how many of the newest entries to look through  ARGV[2] ms that they may be old  ARGV[3…] event ids
-- Returns, for each, ms until it is due, 0 if it is stored, -1 if it is neither.
local found, now = {}, server_ms()
local oldest = string.format('%.0f', math.max(0, now - ARGV[2]))
for _, entry in ipairs(redis.call('XREVRANGE', KEYS[1], '+', oldest, 'COUNT', ARGV[1])) do
  found[entry[2][2]] = true
end
local waits = {}
for i = 3, #ARGV do
  local due = not found[ARGV[i]] and redis.call('ZSCORE', KEYS[2], ARGV[i])
  waits[i - 2] = found[ARGV[i]] and 0 or due and math.max(1, due - now) or -1
end
return waits
