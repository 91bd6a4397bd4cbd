-- How many entries of a lane are between two others. Reads only.
-- KEYS[1] lane  ARGV[1] id of the first  ARGV[2] id of the last  ARGV[3] how many are counted at the most
-- Returns the number.
return #redis.call('XRANGE', KEYS[1], '(' .. ARGV[1], '(' .. ARGV[2], 'COUNT', ARGV[3])
