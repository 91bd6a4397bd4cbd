-- Keep an envelope back until it is due.
-- KEYS[1] due (ZSET: event id by ms)  KEYS[2] scheduled (HASH: event id to packed lane and fields)
-- ARGV[1] delay in ms  ARGV[2] event id  ARGV[3] priority  ARGV[4…11] field, value, …
-- Returns 1, or 0 if it is scheduled already.
if redis.call('ZSCORE', KEYS[1], ARGV[2]) then
  return 0
end
redis.call('HSET', KEYS[2], ARGV[2], cmsgpack.pack({tonumber(ARGV[3]), unpack(ARGV, 4, 11)}))
redis.call('ZADD', KEYS[1], server_ms() + ARGV[1], ARGV[2])
return 1
