-- Create a group at the beginning of every lane, and have the trimming wait for it.
-- KEYS[1…10] lanes  KEYS[11] groups (HASH)
-- ARGV[1] group
-- Returns in how many lanes it was missing.
local made = 0
redis.call('HSET', KEYS[11], ARGV[1], server_ms())
for lane = 1, 10 do
  local reply = redis.pcall('XGROUP', 'CREATE', KEYS[lane], ARGV[1], '0', 'MKSTREAM')
  if not reply.err then
    made = made + 1
  elseif string.sub(reply.err, 1, 9) ~= 'BUSYGROUP' then
    return reply
  end
end
return made
