-- Stands before every script that deals with one session.
-- KEYS[1] its state (HASH: status, count, bytes, created and expires in ms, metadata; published, batches, streams)
-- ARGV[1] ms by which its time is judged, if that is earlier than now; 0 for now
-- `status` is what it is: false if there is none, EXPIRED if it was left ACTIVE for too long.
local now = server_ms()
local judged = tonumber(ARGV[1]) > 0 and math.min(now, tonumber(ARGV[1])) or now
local status = redis.call('HGET', KEYS[1], 'status')
if status == 'ACTIVE' and judged >= tonumber(redis.call('HGET', KEYS[1], 'expires')) then
  status = 'EXPIRED'
end

-- What is answered: a word, the status, and the state as it is now.
local function told(word)
  return {word, status, redis.call('HGETALL', KEYS[1])}
end

