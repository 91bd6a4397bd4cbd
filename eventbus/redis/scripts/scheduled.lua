-- Look at some of what is kept back. Reads only.
-- KEYS[1] scheduled (HASH: event id to packed lane and fields)
-- ARGV[1] cursor, '0' to begin with  ARGV[2] about how many
-- Returns {the next cursor, '0' at the end; {{field, value, …}, …}}.
local found = redis.call('HSCAN', KEYS[1], ARGV[1], 'COUNT', ARGV[2])
local entries = {}
for i = 2, #found[2], 2 do
  local entry = cmsgpack.unpack(found[2][i])
  table.remove(entry, 1)
  entries[#entries + 1] = entry
end
return {found[1], entries}
