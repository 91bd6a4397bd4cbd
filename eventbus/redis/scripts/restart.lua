-- Let leases begin now that were renewed in times to come: the server's clock was set back since. No others change.
-- KEYS[1] lane  ARGV[1] group  ARGV[2] consumer  ARGV[3] id to begin at  ARGV[4] how many to look at
-- Returns {id to begin at next time, '' if this was the end, how many begin now}.
-- Redis tells an age of 0 for what is of times to come, and for what was renewed this very millisecond: that is harmless.
local found = 0
local pending = redis.call('XPENDING', KEYS[1], ARGV[1], ARGV[3], '+', ARGV[4], ARGV[2])
for _, entry in ipairs(pending) do
  if entry[3] <= 0 then
    redis.call('XCLAIM', KEYS[1], ARGV[1], ARGV[2], 0, entry[1], 'JUSTID')
    found = found + 1
  end
end
return {#pending == tonumber(ARGV[4]) and '(' .. pending[#pending][1] or '', found}
