-- COMMITTING becomes COMMITTED.
-- KEYS[1] state  KEYS[2] events  KEYS[3] additions
-- ARGV[1] 0  ARGV[2] batches  ARGV[3] streams (JSON)  ARGV[4] ms for which its end can be seen
-- Returns 'OK' or 'STATE', status, state.
if status == 'COMMITTED' then
  return told('OK')
end
if status ~= 'COMMITTING' then
  return told('STATE')
end
status = 'COMMITTED'
local published = redis.call('HGET', KEYS[1], 'count')
redis.call('HSET', KEYS[1], 'status', status, 'published', published, 'batches', ARGV[2], 'streams', ARGV[3])
for _, key in ipairs(KEYS) do
  redis.call('PEXPIRE', key, ARGV[4])
end
return told('OK')
