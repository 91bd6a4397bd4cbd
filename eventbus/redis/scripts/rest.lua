-- Let entries of a lane rest until each is due, many at a time: those that limits keep waiting.
-- KEYS[1] lane  KEYS[2] retry (ZSET: entry by ms)
-- ARGV[1] group  ARGV[2] consumer  ARGV[3] the consumer under which entries rest
-- ARGV[4…] for each an entry and the ms since the epoch when it is due
-- Returns how many were this consumer's (still).
-- The write that can run out of memory comes first, so that it fails before anything has changed.
local dues, claim = {}, {KEYS[1], ARGV[1], ARGV[3], 0}
for i = 4, #ARGV, 2 do
  local id = id_of(ARGV[i])
  if #redis.call('XPENDING', KEYS[1], ARGV[1], id, id, 1, ARGV[2]) > 0 then
    dues[#dues + 1], dues[#dues + 2] = ARGV[i + 1], ARGV[i]
    claim[#claim + 1] = id
  end
end
if #dues > 0 then
  redis.call('ZADD', KEYS[2], unpack(dues))
  claim[#claim + 1] = 'JUSTID'
  redis.call('XCLAIM', unpack(claim))
end
return #dues / 2
