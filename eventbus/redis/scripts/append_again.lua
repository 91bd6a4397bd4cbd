-- Append or schedule envelopes of one priority that may be there already: their publisher lost the reply.
-- KEYS[1] lane  KEYS[2] due (ZSET: event id by ms)  KEYS[3] scheduled (HASH: event id to packed lane and fields)
-- ARGV[1] how many of the newest entries to look through  ARGV[2] ms that they may be old  ARGV[3] priority
-- ARGV[4…] per envelope nine values: delay in ms, then field, value, … with the event id as the third
-- Returns, per envelope, 1 if it was stored or scheduled now and 0 if it was there.
local now = server_ms()
local seen = {}
local oldest = string.format('%d', now - ARGV[2])
for _, entry in ipairs(redis.call('XREVRANGE', KEYS[1], '+', oldest, 'COUNT', ARGV[1])) do
  seen[entry[2][2]] = true
end
local stored = {}
for i = 4, #ARGV, 9 do
  local delay, id = tonumber(ARGV[i]), ARGV[i + 2]
  if seen[id] or redis.call('ZSCORE', KEYS[2], id) then
    stored[#stored + 1] = 0
  else
    if delay > 0 then
      redis.call('HSET', KEYS[3], id, cmsgpack.pack({tonumber(ARGV[3]), unpack(ARGV, i + 1, i + 8)}))
      redis.call('ZADD', KEYS[2], now + delay, id)
    else
      redis.call('XADD', KEYS[1], '*', unpack(ARGV, i + 1, i + 8))
    end
    seen[id] = true
    stored[#stored + 1] = 1
  end
end
return stored
