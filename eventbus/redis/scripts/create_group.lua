-- Create a group at the beginning of every lane, have the trimming wait for it, and begin to count what it settles.
-- KEYS[1…10] lanes  KEYS[11] groups (HASH)  KEYS[12] counts (HASH: see accounts.lua)
-- ARGV[1] group
-- Returns in how many lanes it was missing.
local made = 0
redis.call('HSET', KEYS[11], ARGV[1], server_ms())
for lane = 1, 10 do
  local reply = redis.pcall('XGROUP', 'CREATE', KEYS[lane], ARGV[1], '0', 'MKSTREAM')
  if not reply.err then
    made = made + 1
    -- All that is in the lane is before the group; what was trimmed by then is none of its business.
    local stream = pairs_of(redis.call('XINFO', 'STREAM', KEYS[lane]))
    local name = lane .. ':' .. ARGV[1]
    redis.pcall('HDEL', KEYS[12], 'acked:' .. name, 'buried:' .. name, 'base:' .. name)
    if stream['entries-added'] > stream.length then
      redis.pcall('HSET', KEYS[12], 'base:' .. name, stream['entries-added'] - stream.length)
    end
  elseif string.sub(reply.err, 1, 9) ~= 'BUSYGROUP' then
    return reply
  end
end
if made == 10 then
  for _, name in ipairs({'noted:', 'gaps:', 'found:'}) do
    redis.pcall('HDEL', KEYS[12], name .. ARGV[1])
  end
  redis.pcall('HSET', KEYS[12], 'since:' .. ARGV[1], string.format('%.0f', server_ms()))
end
return made
