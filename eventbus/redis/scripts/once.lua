-- Append or schedule an envelope, unless another one holds its dedupe key.
-- KEYS[1] the key's holder (STRING: event id)  KEYS[2] lane  KEYS[3] due (ZSET: event id by ms)
-- KEYS[4] scheduled (HASH: event id to packed lane and fields)  KEYS[5] counts (HASH)
-- ARGV[1] ms that the key is held, once the event is due
-- ARGV[2] '1': a holder that is still scheduled makes way, if its event id is the earlier one
-- ARGV[3] delay in ms  ARGV[4] ms since the epoch at the earliest, 0 for none  ARGV[5] priority
-- ARGV[6…13] field, value, …, with the event id as the second
-- Returns ms until the event is due, 0 if it is stored; -1 if another one holds the key.
-- The holder is written first: if there is no memory for it, nothing has changed.
local now, id = server_ms(), ARGV[7]
local holder = redis.call('GET', KEYS[1])
local due = holder and redis.call('ZSCORE', KEYS[3], holder)
if holder == id then  -- this publish, repeated
  return due and math.max(1, due - now) or 0
end
-- An older publish may come behind a newer one: repeated, from a spool, from an outbox. The newer one stays.
if holder and not (due and ARGV[2] == '1' and holder < id) then
  return -1
end
local at = math.max(now + ARGV[3], tonumber(ARGV[4]))
redis.call('SET', KEYS[1], id, 'PX', string.format('%.0f', at - now + ARGV[1]))
if holder then
  withdraw(KEYS[3], KEYS[4], KEYS[5], holder)
end
if at > now then
  keep(KEYS[3], KEYS[4], KEYS[5], at, id, cmsgpack.pack({tonumber(ARGV[5]), unpack(ARGV, 6, 13)}))
else
  redis.call('XADD', KEYS[2], '*', unpack(ARGV, 6, 13))
end
return at - now
