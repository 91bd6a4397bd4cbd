-- Keep an envelope back until it is due; one that is due already goes into its lane.
-- KEYS[1] lane  KEYS[2] due (ZSET: event id by ms)  KEYS[3] scheduled (HASH: event id to packed lane and fields)
-- KEYS[4] counts (HASH)
-- ARGV[1] delay in ms, 0 for none  ARGV[2] ms since the epoch at the earliest, 0 for none  ARGV[3] event id
-- ARGV[4] priority  ARGV[5…12] field, value, …
-- Returns ms until it is due, 0 if it was stored at once, -1 if it is scheduled already.
if redis.call('ZSCORE', KEYS[2], ARGV[3]) then
  return -1
end
local now = server_ms()
local due = math.max(now + ARGV[1], tonumber(ARGV[2]))
if due > now then
  keep(KEYS[2], KEYS[3], KEYS[4], due, ARGV[3], cmsgpack.pack({tonumber(ARGV[4]), unpack(ARGV, 5, 12)}))
else
  redis.call('XADD', KEYS[1], '*', unpack(ARGV, 5, 12))
end
return due - now
