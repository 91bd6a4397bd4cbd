-- When a recurring function fired last. Asked for the first time, the record begins with the present.
-- KEYS[1] fired (HASH: name to ms at which its last firing was due)  ARGV[1] name
-- Returns {the server's time in ms, ms at which the last firing was due}.
local now = server_ms()
redis.call('HSETNX', KEYS[1], ARGV[1], string.format('%d', now))
return {now, tonumber(redis.call('HGET', KEYS[1], ARGV[1]))}
