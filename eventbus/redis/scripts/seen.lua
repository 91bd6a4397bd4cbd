-- Which events of one priority are stored or scheduled. Reads only.
-- KEYS[1] lane  KEYS[2] due (ZSET: event id by ms)
-- ARGV[1] how many of the newest entries to look through  ARGV[2] ms that they may be old  ARGV[3…] event ids
-- Returns 1 or 0 for each.
local found = {}
local oldest = string.format('%.0f', math.max(0, server_ms() - ARGV[2]))
for _, entry in ipairs(redis.call('XREVRANGE', KEYS[1], '+', oldest, 'COUNT', ARGV[1])) do
  found[entry[2][2]] = true
end
local seen = {}
for i = 3, #ARGV do
  seen[i - 2] = (found[ARGV[i]] or redis.call('ZSCORE', KEYS[2], ARGV[i])) and 1 or 0
end
return seen
