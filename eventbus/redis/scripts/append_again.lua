-- Append or schedule envelopes of one priority that may be there already: their publisher lost the reply.
-- KEYS[1] lane  KEYS[2] due (ZSET: event id by ms)  KEYS[3] scheduled (HASH: event id to packed lane and fields)
-- ARGV[1] how many of the newest entries to look through  ARGV[2] ms that they may be old  ARGV[3] priority
-- ARGV[4…] per envelope ten values: delay in ms and ms since the epoch at the earliest, 0 for none, then field, value, …
-- with the event id as the fourth
-- Returns, per envelope, ms until it is due, 0 if it was stored at once, -1 if it was there.
local now = server_ms()
local seen = {}
local oldest = string.format('%.0f', math.max(0, now - ARGV[2]))
for _, entry in ipairs(redis.call('XREVRANGE', KEYS[1], '+', oldest, 'COUNT', ARGV[1])) do
  seen[entry[2][2]] = true
end
local waits = {}
for i = 4, #ARGV, 10 do
  local due, id = math.max(now + ARGV[i], tonumber(ARGV[i + 1])), ARGV[i + 3]
  if seen[id] or redis.call('ZSCORE', KEYS[2], id) then
    waits[#waits + 1] = -1
  else
    if due > now then
      redis.call('HSET', KEYS[3], id, cmsgpack.pack({tonumber(ARGV[3]), unpack(ARGV, i + 2, i + 9)}))
      redis.call('ZADD', KEYS[2], due, id)
    else
      redis.call('XADD', KEYS[1], '*', unpack(ARGV, i + 2, i + 9))
    end
    seen[id] = true
    waits[#waits + 1] = due - now
  end
end
return waits
