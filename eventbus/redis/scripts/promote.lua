-- Move what is due from the schedule into the stream, oldest due time first.
-- KEYS[1] stream  KEYS[2] due (ZSET: event id by ms)  KEYS[3] scheduled (HASH: event id to packed fields)
-- ARGV[1] how many at the most
-- Returns ms until the next one is due (0 if more are due now), or -1 if there is none.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
for _, id in ipairs(redis.call('ZRANGEBYSCORE', KEYS[2], '-inf', now, 'LIMIT', 0, ARGV[1])) do
  local packed = redis.call('HGET', KEYS[3], id)
  if packed then
    redis.call('XADD', KEYS[1], '*', unpack(cmsgpack.unpack(packed)))
    redis.call('HDEL', KEYS[3], id)
  end
  redis.call('ZREM', KEYS[2], id)
end
local first = redis.call('ZRANGE', KEYS[2], 0, 0, 'WITHSCORES')
if #first == 0 then
  return -1
end
return math.max(0, first[2] - now)
