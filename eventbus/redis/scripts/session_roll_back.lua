-- ACTIVE becomes ROLLED_BACK, and its events are gone.
-- KEYS[1] state  KEYS[2] active (ZSET)  KEYS[3] events  KEYS[4] additions
-- ARGV[1] ms by which its time is judged  ARGV[2] session id  ARGV[3] ms for which its end can be seen
-- Returns 'OK' or 'STATE', status, state.
-- What frees memory comes first, so that it is done where there is none left.
if status == 'ROLLED_BACK' then
  return told('OK')
end
if status ~= 'ACTIVE' then
  return told('STATE')
end
status = 'ROLLED_BACK'
redis.call('ZREM', KEYS[2], ARGV[2])
redis.call('UNLINK', KEYS[3])
redis.call('HSET', KEYS[1], 'status', status)
redis.call('PEXPIRE', KEYS[1], ARGV[3])
redis.call('PEXPIRE', KEYS[4], ARGV[3])
return told('OK')
