-- Look for events on one page of a lane, newest first. Reads only.
-- KEYS[1] lane
-- ARGV[1] where to begin: '+', or what the page before has returned
-- ARGV[2] ms that entries may be old, or '(' and the id of an entry behind which they stand
-- ARGV[3] how many entries  ARGV[4] about how many bytes  ARGV[5…] event ids
-- Returns {where to go on, '' at the end; entries; bytes; the newest entry id, '' if there is none; {places found}}, the
-- places among the event ids from 1 on.
local wanted = {}
for i = 5, #ARGV do
  wanted[ARGV[i]] = i - 4
end
local to = string.sub(ARGV[2], 1, 1) == '(' and ARGV[2] or oldest(ARGV[2])
return look(KEYS[1], ARGV[1], to, tonumber(ARGV[3]), tonumber(ARGV[4]), wanted)
