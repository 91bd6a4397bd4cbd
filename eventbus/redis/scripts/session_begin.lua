-- ACTIVE becomes COMMITTING, and stays until it is COMMITTED, however long that takes.
-- KEYS[1] state  KEYS[2] active (ZSET)  KEYS[3] events  KEYS[4] additions
-- ARGV[1] ms by which its time is judged  ARGV[2] session id  ARGV[3] ms of the note  ARGV[4] ms that the note holds
-- ARGV[5] how many partitions streams have, as JSON: kept, for all who go on with this commit
-- Returns 'OK', 'STATE', 'STALE' or 'LOST', status, state, the ms of now, and the partitions of the commit.
local word = 'OK'
if status ~= 'ACTIVE' and status ~= 'COMMITTING' and status ~= 'COMMITTED' then
  word = 'STATE'
elseif now - ARGV[3] > tonumber(ARGV[4]) then
  word = 'STALE'  -- somebody may have taken it back meanwhile
elseif status == 'ACTIVE' and redis.call('LLEN', KEYS[3]) ~= tonumber(redis.call('HGET', KEYS[1], 'count')) then
  word = 'LOST'  -- a server that may evict has done so
elseif status == 'ACTIVE' then
  status = 'COMMITTING'
  redis.call('HSET', KEYS[1], 'status', status, 'partitions', ARGV[5])
  redis.call('ZREM', KEYS[2], ARGV[2])
  redis.call('PERSIST', KEYS[1])
  redis.call('PERSIST', KEYS[3])
  redis.call('PERSIST', KEYS[4])
end
local answer = told(word)
answer[4] = now
answer[5] = redis.call('HGET', KEYS[1], 'partitions')
return answer
