-- Let an entry rest in the pending list until it is due: retry, snooze, release.
-- KEYS[1] lane  KEYS[2] retry (ZSET: entry by ms)  KEYS[3] failures (HASH)  KEYS[4] crashes (HASH)
-- ARGV[1] group  ARGV[2] consumer  ARGV[3] entry  ARGV[4] delay in ms
-- ARGV[5] failures that the consumer knew of when it began, '' if none is added  ARGV[6] the consumer under which entries
-- rest
-- Returns 1, or 0 if the entry is not this consumer's (any more).
-- A failure is added to those that are noted: whoever ran it since then may have noted more than this consumer knew of.
-- The record is 'count teller;teller;… first-failed-ms'. A teller is 'consumer=n': its failure was its n-th, by what it
-- knew when it began. A failure that is sent again, because the reply was lost, is known by that and counts once, also
-- if others have failed since. The last ten are kept. (Versions before wrote the last consumer, without its number.)
-- The write that can run out of memory comes first, so that it fails before anything has changed.
local entry, id = ARGV[3], id_of(ARGV[3])
if #redis.call('XPENDING', KEYS[1], ARGV[1], id, id, 1, ARGV[2]) == 0 then
  return 0
end
local now = server_ms()
local noted = ARGV[5] ~= '' and redis.call('HGET', KEYS[3], entry) or ''
redis.call('ZADD', KEYS[2], now + ARGV[4], entry)
if ARGV[5] ~= '' then
  local count, by, since = string.match(noted, '^(%d+) ?(.-) (%d+)$')
  local known, mine = tonumber(count) or 0, tonumber(ARGV[5]) + 1
  local teller, tellers = string.format('%s=%.0f', ARGV[2], mine), {}
  local again = known == mine and by == ARGV[2]
  for each in string.gmatch(by or '', '[^;]+') do
    tellers[#tellers + 1] = each
    again = again or each == teller
  end
  if not again then
    tellers[#tellers + 1] = teller
    known = math.max(known + 1, mine)
  end
  local record = string.format('%.0f %s %s', known, table.concat(tellers, ';', math.max(1, #tellers - 9)), since or
    string.format('%d', now))
  redis.call('HSET', KEYS[3], entry, record)
  redis.call('HDEL', KEYS[4], entry)  -- it failed without killing anyone
end
redis.call('XCLAIM', KEYS[1], ARGV[1], ARGV[6], 0, id, 'JUSTID')
return 1
