-- Drop a group, with what it has not settled, which is counted.
-- KEYS[1…10] lanes  KEYS[11] groups (HASH)  KEYS[12] retry  KEYS[13] failures  KEYS[14] crashes
-- KEYS[15] counts (HASH: see accounts.lua; forgotten, entries that were pending when their group was dropped)
-- KEYS[16] order (HASH: see ordering.lua)
-- ARGV[1] group
-- Returns 1, or 0 if nothing was there.
local found, pending = redis.call('HDEL', KEYS[11], ARGV[1]), 0
for lane = 1, 10 do
  local held = redis.pcall('XPENDING', KEYS[lane], ARGV[1])
  local reply = redis.pcall('XGROUP', 'DESTROY', KEYS[lane], ARGV[1])
  if reply == 1 then
    found, pending = 1, pending + (held[1] or 0)
  end
  for _, name in ipairs({'acked:', 'buried:', 'base:'}) do
    redis.call('HDEL', KEYS[15], name .. lane .. ':' .. ARGV[1])
  end
end
for _, name in ipairs({'since:', 'found:', 'noted:', 'gaps:', 'letters:', 'lettersSince:', 'removed:'}) do
  redis.call('HDEL', KEYS[15], name .. ARGV[1])
end
redis.call('DEL', KEYS[12], KEYS[13], KEYS[14], KEYS[16])
if pending > 0 then
  redis.pcall('HINCRBY', KEYS[15], 'forgotten', pending)
end
return found
