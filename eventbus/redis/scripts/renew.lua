-- Keep the leases of entries that this consumer still owns. The owner is checked first: XCLAIM alone would steal back.
-- KEYS[1] lane  ARGV[1] group  ARGV[2] consumer  ARGV[3…] entries
-- Returns those that are no longer this consumer's.
local lost = {}
for i = 3, #ARGV do
  local id = id_of(ARGV[i])
  if #redis.call('XPENDING', KEYS[1], ARGV[1], id, id, 1, ARGV[2]) == 0 then
    lost[#lost + 1] = ARGV[i]
  else
    redis.call('XCLAIM', KEYS[1], ARGV[1], ARGV[2], 0, id, 'JUSTID')
  end
end
return lost
