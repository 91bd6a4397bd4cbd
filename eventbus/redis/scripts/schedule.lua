-- Keep an envelope back until it is due.
-- KEYS[1] stream  KEYS[2] due (ZSET: event id by ms)  KEYS[3] scheduled (HASH: event id to packed fields)
-- ARGV[1] delay in ms  ARGV[2] event id  ARGV[3…10] field, value, …
-- Returns 1, or 0 if it is scheduled already.
if redis.call('ZSCORE', KEYS[2], ARGV[2]) then
  return 0
end
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
redis.call('HSET', KEYS[3], ARGV[2], cmsgpack.pack({unpack(ARGV, 3, 10)}))
redis.call('ZADD', KEYS[2], now + ARGV[1], ARGV[2])
return 1
