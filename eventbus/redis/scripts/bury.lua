-- Move an entry from the pending list to the dead letters, and count it.
-- KEYS[1] lane  KEYS[2] retry  KEYS[3] failures (HASH: see park.lua)  KEYS[4] crashes  KEYS[5] dead
-- KEYS[6] counts (HASH: see accounts.lua; letters:GROUP, dead letters ever, lettersSince:GROUP, ms of the first of them)
-- KEYS[7] order (HASH: see ordering.lua)  KEYS[8…17] all lanes: of an ordered group
-- ARGV[1] group  ARGV[2] consumer  ARGV[3] entry  ARGV[4] name of the count
-- ARGV[5…] field, value, … of the dead letter, to which dead.firstFailedAt (ms) is added; some 2,000 values at the most
-- Returns {the dead letter's id, of an ordered group the next entry of its key and its fields: see follow}, or nil if the entry is not this consumer's (any more).
-- The write that can run out of memory comes first, so that it fails before anything has changed.
local entry, id = ARGV[3], id_of(ARGV[3])
if #redis.call('XPENDING', KEYS[1], ARGV[1], id, id, 1, ARGV[2]) == 0 then
  return nil
end
local known = redis.pcall('HGET', KEYS[3], entry)  -- records that cannot be read keep nothing from being buried
local since = type(known) == 'string' and string.match(known, '^%d.* (%d+)$') or string.format('%d', server_ms())
local fields = {unpack(ARGV, 5)}
fields[#fields + 1] = 'dead.firstFailedAt'
fields[#fields + 1] = since
local dead = redis.call('XADD', KEYS[5], '*', unpack(fields))
local done = redis.call('XACK', KEYS[1], ARGV[1], id)
redis.pcall('HINCRBY', KEYS[6], ARGV[4], done)
redis.pcall('HINCRBY', KEYS[6], 'letters:' .. ARGV[1], 1)
redis.pcall('HSETNX', KEYS[6], 'lettersSince:' .. ARGV[1], string.match(dead, '^%d+'))
redis.pcall('ZREM', KEYS[2], entry)
redis.pcall('HDEL', KEYS[3], entry)
redis.pcall('HDEL', KEYS[4], entry)
return {dead, KEYS[7] and follow(KEYS[7], {unpack(KEYS, 8, 17)}, ARGV[1], ARGV[2], entry)}
