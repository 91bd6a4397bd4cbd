-- Note that a session is about to be committed.
-- KEYS[1] committing (ZSET: 'id organization' by ms)
-- ARGV[1] 'id organization'
-- Returns the ms of the note.
local now = server_ms()
redis.call('ZADD', KEYS[1], string.format('%.0f', now), ARGV[1])
return now
