-- Drop a group, with what it has not settled.
-- KEYS[1…10] lanes  KEYS[11] groups (HASH)  KEYS[12] retry  KEYS[13] failures  KEYS[14] crashes
-- ARGV[1] group
-- Returns 1, or 0 if nothing was there.
local found = redis.call('HDEL', KEYS[11], ARGV[1])
for lane = 1, 10 do
  local reply = redis.pcall('XGROUP', 'DESTROY', KEYS[lane], ARGV[1])
  if reply == 1 then
    found = 1
  end
end
redis.call('DEL', KEYS[12], KEYS[13], KEYS[14])
return found
