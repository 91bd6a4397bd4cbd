-- A session that collects events. One that is there already stays as it is.
-- KEYS[1] state  KEYS[2] active (ZSET: session id by ms at which it expires)
-- ARGV[1] 0  ARGV[2] session id  ARGV[3] ms that it collects  ARGV[4] metadata (JSON)
-- Returns 'OK', status, state.
if not status then
  local expires = now + ARGV[3]
  status = 'ACTIVE'
  redis.call('HSET', KEYS[1], 'status', status, 'count', 0, 'bytes', 0, 'created', string.format('%.0f', now),
    'expires', string.format('%.0f', expires), 'metadata', ARGV[4])
  -- As long again, so that it can be seen to have expired, and so that what was acknowledged in time still finds it.
  redis.call('PEXPIREAT', KEYS[1], string.format('%.0f', expires + ARGV[3]))
  redis.call('ZREMRANGEBYSCORE', KEYS[2], '-inf', string.format('%.0f', now))
  redis.call('ZADD', KEYS[2], string.format('%.0f', expires), ARGV[2])
end
return told('OK')
