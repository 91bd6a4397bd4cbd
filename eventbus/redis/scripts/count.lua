-- How many entries of a lane are in a span of ids; some at a time. Reads only.
-- KEYS[1] lane  ARGV[1] id to begin at, with '(' if behind it  ARGV[2] the last id  ARGV[3] how many are counted at the most
-- Returns {the number, id to go on at or '' if this was the end}.
local found = redis.call('XRANGE', KEYS[1], ARGV[1], ARGV[2], 'COUNT', ARGV[3])
return {#found, #found == tonumber(ARGV[3]) and '(' .. found[#found][1] or ''}
