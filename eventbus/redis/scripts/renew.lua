-- Keep the leases of entries that this consumer still owns. The owner is checked first: XCLAIM alone would steal back.
-- KEYS[1] stream  ARGV[1] group  ARGV[2] consumer  ARGV[3…] entry ids
-- Returns the ids that are no longer this consumer's.
local lost = {}
for i = 3, #ARGV do
  if #redis.call('XPENDING', KEYS[1], ARGV[1], ARGV[i], ARGV[i], 1, ARGV[2]) == 0 then
    lost[#lost + 1] = ARGV[i]
  else
    redis.call('XCLAIM', KEYS[1], ARGV[1], ARGV[2], 0, ARGV[i], 'JUSTID')
  end
end
return lost
