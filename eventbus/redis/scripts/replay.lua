-- Put a dead letter back into its lane; of two who try, one does.
-- KEYS[1] lane  KEYS[2] dead  ARGV[1] dead letter's id  ARGV[2…9] field, value, … of the entry
-- Returns the new entry's id, or nil if the dead letter is gone.
if #redis.call('XRANGE', KEYS[2], ARGV[1], ARGV[1]) == 0 then
  return nil
end
local entry = redis.call('XADD', KEYS[1], '*', unpack(ARGV, 2, 9))
redis.call('XDEL', KEYS[2], ARGV[1])
if redis.call('XLEN', KEYS[2]) == 0 then
  redis.call('DEL', KEYS[2])
end
return entry
