-- Add to the last things of something.
-- KEYS[1] ZSET: thing by position
-- ARGV[1] how many are kept  ARGV[2] ms that they are kept  ARGV[3…] position, thing, …
-- Returns nothing.
redis.call('ZADD', KEYS[1], unpack(ARGV, 3))
redis.call('ZREMRANGEBYRANK', KEYS[1], 0, -ARGV[1] - 1)
redis.call('PEXPIRE', KEYS[1], ARGV[2])
