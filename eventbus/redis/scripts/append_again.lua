-- Append envelopes that may be in the stream already: their publisher lost the reply.
-- KEYS[1] stream  KEYS[2] due (ZSET: event id by ms)
-- ARGV[1] how many of the newest entries to look through  ARGV[2] ms that they may be old
-- ARGV[3…] per envelope eight values: field, value, … with the event id as the second
-- Returns, per envelope, 1 if it was stored now and 0 if it was there.
local seen = {}
local oldest = string.format('%d', redis.call('TIME')[1] * 1000 - ARGV[2])
for _, entry in ipairs(redis.call('XREVRANGE', KEYS[1], '+', oldest, 'COUNT', ARGV[1])) do
  seen[entry[2][2]] = true
end
local stored = {}
for i = 3, #ARGV, 8 do
  local id = ARGV[i + 1]
  if seen[id] or redis.call('ZSCORE', KEYS[2], id) then
    stored[#stored + 1] = 0
  else
    redis.call('XADD', KEYS[1], '*', unpack(ARGV, i, i + 7))
    seen[id] = true
    stored[#stored + 1] = 1
  end
end
return stored
