-- Take back a scheduled event. If it is being promoted at the same time, only one of the two finds it.
-- KEYS[1] due (ZSET: event id by ms)  KEYS[2] scheduled (HASH: event id to packed fields)  KEYS[3] counts (HASH)
-- ARGV[1] event id
-- Returns 1, or 0 if it is not scheduled.
return withdraw(KEYS[1], KEYS[2], KEYS[3], ARGV[1])
