#!lua flags=allow-oom
-- Those that still run keep their places.
-- KEYS[1] running (ZSET: member by the end of its lease)  ARGV[1] lease in ms  ARGV[2…] members
-- Returns how many had lost theirs: for want of a renewal in time they run beside others.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local lost = 0
for i = 2, #ARGV do
  lost = lost + redis.call('ZADD', KEYS[1], now + ARGV[1], ARGV[i])
end
redis.call('PEXPIRE', KEYS[1], 2 * ARGV[1])
return lost
