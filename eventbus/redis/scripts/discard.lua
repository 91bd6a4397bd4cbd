-- Forget a dead letter.
-- KEYS[1] dead  ARGV[1] dead letter's id
-- Returns 1, or 0 if it is gone already.
local gone = redis.call('XDEL', KEYS[1], ARGV[1])
if redis.call('XLEN', KEYS[1]) == 0 then
  redis.call('DEL', KEYS[1])
end
return gone
