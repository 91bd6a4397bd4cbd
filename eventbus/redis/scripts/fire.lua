-- Store a firing of a recurring function, once, however many workers try.
-- KEYS[1] stream  KEYS[2] fired (HASH: name to ms at which its last firing was due)
-- ARGV[1] name  ARGV[2] ms at which this firing is due  ARGV[3…10] field, value, …
-- Returns 1, or 0 if this firing or a later one has been stored. A record that is no number says nothing.
-- The write that can run out of memory comes first, so that it fails before anything has changed.
if (tonumber(redis.call('HGET', KEYS[2], ARGV[1]) or '') or 0) >= tonumber(ARGV[2]) then
  return 0
end
redis.call('XADD', KEYS[1], '*', unpack(ARGV, 3, 10))
redis.call('HSET', KEYS[2], ARGV[1], ARGV[2])
return 1
