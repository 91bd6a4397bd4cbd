-- Done, for entries of an ordered group: what is next of their keys is handed to the consumer.
-- KEYS[1…10] lanes  KEYS[11] retry  KEYS[12] failures  KEYS[13] crashes  KEYS[14] counts (HASH: see accounts.lua)
-- KEYS[15] order (HASH: see ordering.lua)
-- ARGV[1] group  ARGV[2] consumer  ARGV[3…] entries
-- Returns {{entry, fields}, …}, what may begin now. Unlike in other groups, an acknowledgement counts only from the owner:
-- who has lost an entry must not begin what comes behind it, while its new owner is at it.
local lanes, freed, done = {unpack(KEYS, 1, 10)}, {}, {}
local records = redis.call('EXISTS', KEYS[11], KEYS[12], KEYS[13]) > 0  -- of most groups there are none at most times
for i = 3, #ARGV do
  local entry = ARGV[i]
  local id, lane = id_of(entry), lane_of(entry)
  if #redis.call('XPENDING', KEYS[lane], ARGV[1], id, id, 1, ARGV[2]) > 0 then
    redis.call('XACK', KEYS[lane], ARGV[1], id)
    done[lane] = (done[lane] or 0) + 1
    if records then
      redis.pcall('ZREM', KEYS[11], entry)
      redis.pcall('HDEL', KEYS[12], entry)
      redis.pcall('HDEL', KEYS[13], entry)
    end
    freed[#freed + 1] = follow(KEYS[15], lanes, ARGV[1], ARGV[2], entry)
  end
end
for lane, count in pairs(done) do
  redis.pcall('HINCRBY', KEYS[14], 'acked:' .. lane .. ':' .. ARGV[1], count)
end
return freed
