-- Keep an envelope back until it is due.
-- KEYS[1] stream  KEYS[2] due (ZSET: event id by ms)  KEYS[3] scheduled (HASH: event id to packed fields)
-- ARGV[1] delay in ms  ARGV[2] event id
-- ARGV[3] '' or, for an envelope that may have been promoted already, how many of the newest entries to look through
-- ARGV[4] ms that they may be old  ARGV[5…12] field, value, …
-- Returns 1, or 0 if it was scheduled or promoted before.
if redis.call('ZSCORE', KEYS[2], ARGV[2]) then
  return 0
end
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
if ARGV[3] ~= '' then
  local oldest = string.format('%d', now - ARGV[4])
  for _, entry in ipairs(redis.call('XREVRANGE', KEYS[1], '+', oldest, 'COUNT', ARGV[3])) do
    if entry[2][2] == ARGV[2] then
      return 0
    end
  end
end
redis.call('HSET', KEYS[3], ARGV[2], cmsgpack.pack({unpack(ARGV, 5, 12)}))
redis.call('ZADD', KEYS[2], now + ARGV[1], ARGV[2])
return 1
