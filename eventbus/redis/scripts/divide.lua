-- A stream is to have so many logs, at least: see eventbus.redis.partitions.
-- KEYS[1] partitions (HASH)
-- ARGV[1] stream  ARGV[2] how many
-- Returns how many it had.
local now = tonumber(string.match(redis.call('HGET', KEYS[1], ARGV[1]) or '', '^%d+')) or 1
if tonumber(ARGV[2]) > now then
  redis.call('HSET', KEYS[1], ARGV[1], ARGV[2] .. ' ' .. now)
end
return now
