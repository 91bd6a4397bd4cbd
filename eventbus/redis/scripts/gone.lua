-- Pending entries that are not in their lane any more. Reads only.
-- KEYS[1] lane  ARGV[1] group  ARGV[2] id to begin at  ARGV[3] how many to look at
-- Returns {id to begin at next time, '' if this was the end, {ids}}.
local gone = {}
local pending = redis.call('XPENDING', KEYS[1], ARGV[1], ARGV[2], '+', ARGV[3])
for _, entry in ipairs(pending) do
  if #redis.call('XRANGE', KEYS[1], entry[1], entry[1]) == 0 then
    gone[#gone + 1] = entry[1]
  end
end
return {#pending == tonumber(ARGV[3]) and '(' .. pending[#pending][1] or '', gone}
