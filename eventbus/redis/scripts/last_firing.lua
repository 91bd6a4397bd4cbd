-- When a recurring function fired last. Asked for the first time, the record begins with the present; and so does one that
-- says what cannot be: a time more than some seconds ahead (the server's clock was), or no time at all.
-- KEYS[1] fired (HASH: name to ms at which its last firing was due)  ARGV[1] name  ARGV[2] ms that it may be ahead
-- Returns {the server's time in ms, ms at which the last firing was due, what stood there instead or ''}.
local now = server_ms()
local known = redis.call('HGET', KEYS[1], ARGV[1])
local due = known and tonumber(string.match(known, '^%d+$') or nil)
if due and due > 0 and due <= now + ARGV[2] then
  return {now, due, ''}
end
redis.call('HSET', KEYS[1], ARGV[1], string.format('%d', now))
return {now, now, known or ''}
