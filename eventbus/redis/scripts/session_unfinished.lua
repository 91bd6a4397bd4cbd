-- Sessions that somebody began to commit a while ago, told to one process at a time.
-- KEYS[1] committing (ZSET: 'id organization' by ms)  KEYS[2] recovering (STRING that expires)
-- ARGV[1] ms that they must be old  ARGV[2] ms for which others are told nothing  ARGV[3] how many at most
-- Returns 'id organization', ms that it is old, …
local now = server_ms()
local last = string.format('%.0f', now - ARGV[1])
local found = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', last, 'WITHSCORES', 'LIMIT', 0, ARGV[3])
if #found == 0 or not redis.call('SET', KEYS[2], '1', 'NX', 'PX', ARGV[2]) then
  return {}
end
for i = 2, #found, 2 do
  found[i] = now - found[i]
end
return found
