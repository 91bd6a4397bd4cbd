-- Put a dead letter back into its lane, and count that; of two who try, one does.
-- KEYS[1] lane  KEYS[2] dead  KEYS[3] counts (HASH: see accounts.lua)
-- ARGV[1] dead letter's id  ARGV[2] its group  ARGV[3…10] field, value, … of the entry
-- Returns the new entry's id, or nil if the dead letter is gone.
if #redis.call('XRANGE', KEYS[2], ARGV[1], ARGV[1]) == 0 then
  return nil
end
local entry = redis.call('XADD', KEYS[1], '*', unpack(ARGV, 3, 10))
redis.call('XDEL', KEYS[2], ARGV[1])
count_removed(KEYS[3], ARGV[1], ARGV[2], 'replayed')
if redis.call('XLEN', KEYS[2]) == 0 then
  redis.call('DEL', KEYS[2])
end
return entry
