-- Done, for entries of an ordered group: what is next of their keys is handed to the consumer.
-- KEYS[1…10] lanes  KEYS[11] retry  KEYS[12] failures  KEYS[13] crashes  KEYS[14] counts (HASH: see accounts.lua)
-- KEYS[15] order (HASH: see ordering.lua)
-- ARGV[1] group  ARGV[2] consumer  ARGV[3…] entries
-- Returns {{entry, fields}, …}, what may begin now. Unlike in other groups, an acknowledgement counts only from the owner:
-- who has lost an entry must not begin what comes behind it, while its new owner is at it.
local lanes, freed = {unpack(KEYS, 1, 10)}, {}
for i = 3, #ARGV do
  local entry = ARGV[i]
  local id, lane = id_of(entry), lane_of(entry)
  if #redis.call('XPENDING', KEYS[lane], ARGV[1], id, id, 1, ARGV[2]) > 0 then
    redis.call('XACK', KEYS[lane], ARGV[1], id)
    redis.pcall('HINCRBY', KEYS[14], 'acked:' .. lane .. ':' .. ARGV[1], 1)
    redis.pcall('ZREM', KEYS[11], entry)
    redis.pcall('HDEL', KEYS[12], entry)
    redis.pcall('HDEL', KEYS[13], entry)
    freed[#freed + 1] = follow(KEYS[15], lanes, ARGV[1], ARGV[2], entry)
  end
end
return freed
