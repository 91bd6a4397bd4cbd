-- Forget a dead letter, and count that.
-- KEYS[1] dead  KEYS[2] counts (HASH: see accounts.lua)  ARGV[1] dead letter's id  ARGV[2] its group
-- Returns 1, or 0 if it is gone already.
local gone = redis.call('XDEL', KEYS[1], ARGV[1])
if gone == 1 then
  count_removed(KEYS[2], ARGV[1], ARGV[2], 'discarded')
end
if redis.call('XLEN', KEYS[1]) == 0 then
  redis.call('DEL', KEYS[1])
end
return gone
