-- Move what is due from the schedule into the lanes, oldest due time first.
-- KEYS[1…10] lanes  KEYS[11] due (ZSET: event id by ms)  KEYS[12] scheduled (HASH: event id to packed lane and fields)
-- ARGV[1] how many at the most
-- Returns ms until the next one is due (0 if more are due now), or -1 if there is none.
local now = server_ms()
for _, id in ipairs(redis.call('ZRANGEBYSCORE', KEYS[11], '-inf', now, 'LIMIT', 0, ARGV[1])) do
  local packed = redis.call('HGET', KEYS[12], id)
  if packed then
    local entry = cmsgpack.unpack(packed)
    redis.call('XADD', KEYS[entry[1]], '*', unpack(entry, 2))
    redis.call('HDEL', KEYS[12], id)
  end
  redis.call('ZREM', KEYS[11], id)
end
local first = redis.call('ZRANGE', KEYS[11], 0, 0, 'WITHSCORES')
if #first == 0 then
  return -1
end
return math.max(0, first[2] - now)
