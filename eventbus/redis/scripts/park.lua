-- Let an entry rest in the pending list until it is due: retry, snooze, release.
-- KEYS[1] lane  KEYS[2] retry (ZSET: entry by ms)  KEYS[3] failures (HASH)  KEYS[4] crashes (HASH)
-- ARGV[1] group  ARGV[2] consumer  ARGV[3] entry  ARGV[4] delay in ms
-- ARGV[5] failures that the consumer knew of when it began, '' if none is added  ARGV[6] the consumer under which entries
-- rest
-- Returns 1, or 0 if the entry is not this consumer's (any more).
-- A failure is added to those that are noted: whoever ran it since then may have noted more than this consumer knew of.
-- The record is 'count consumer first-failed-ms'. A failure that is sent again, because the reply was lost, is known by
-- its consumer and count: it counts once.
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
  local total = (known == mine and by == ARGV[2]) and known or math.max(known + 1, mine)
  redis.call('HSET', KEYS[3], entry, string.format('%.0f %s %s', total, ARGV[2], since or string.format('%d', now)))
  redis.call('HDEL', KEYS[4], entry)  -- it failed without killing anyone
end
redis.call('XCLAIM', KEYS[1], ARGV[1], ARGV[6], 0, id, 'JUSTID')
return 1
