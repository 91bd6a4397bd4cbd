-- The entries of a log (a lane, or dead letters) that carry an event. Reads only.
-- KEYS[1] log  ARGV[1] event id  ARGV[2] id to begin at  ARGV[3] how many to look through
-- Returns {id to begin at next time, '' if this was the end, {{entry id, fields}, …}}.
local found = {}
local entries = redis.call('XRANGE', KEYS[1], ARGV[2], '+', 'COUNT', ARGV[3])
for _, entry in ipairs(entries) do
  if entry[2][2] == ARGV[1] then
    found[#found + 1] = entry
  end
end
local more = #entries == tonumber(ARGV[3])
return {more and '(' .. entries[#entries][1] or '', found}
