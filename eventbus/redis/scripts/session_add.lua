-- Add events to a session: all or none, and once for each addition.
-- KEYS[1] state  KEYS[2] events (LIST)  KEYS[3] additions that were made (SET)
-- ARGV[1] ms by which its time is judged  ARGV[2] addition  ARGV[3] most events  ARGV[4] most bytes
-- ARGV[5] bytes that these have  ARGV[6…] events
-- Returns 'OK', 'STATE' or 'FULL', status, state.
-- The write that needs most memory comes first, so that it fails before anything has changed.
if status and redis.call('SISMEMBER', KEYS[3], ARGV[2]) == 1 then
  return told('OK')
end
if status ~= 'ACTIVE' then
  return told('STATE')
end
local more, count, bytes = #ARGV - 5, redis.call('HGET', KEYS[1], 'count'), redis.call('HGET', KEYS[1], 'bytes')
if count + more > tonumber(ARGV[3]) or bytes + ARGV[5] > tonumber(ARGV[4]) then
  return told('FULL')
end
for i = 6, #ARGV, 1000 do
  redis.call('RPUSH', KEYS[2], unpack(ARGV, i, math.min(i + 999, #ARGV)))
end
redis.call('SADD', KEYS[3], ARGV[2])
redis.call('HINCRBY', KEYS[1], 'count', more)
redis.call('HINCRBY', KEYS[1], 'bytes', ARGV[5])
local gone_at = string.format('%.0f', now + redis.call('PTTL', KEYS[1]))
redis.call('PEXPIREAT', KEYS[2], gone_at)
redis.call('PEXPIREAT', KEYS[3], gone_at)
return told('OK')
