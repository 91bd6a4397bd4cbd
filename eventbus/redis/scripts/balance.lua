-- Where the entries of a lane have gone, for each group. Reads only.
-- KEYS[1] lane  ARGV[1] how many undelivered entries are counted at the most
-- Returns {entries ever added, entries in the lane, {group, …}}, or nil if the lane is not there; a group being
-- {name, entries ever read or -1, entries not delivered or -1 if there are more than are counted, pending}.
if redis.call('EXISTS', KEYS[1]) == 0 then
  return nil
end
local lane = pairs_of(redis.call('XINFO', 'STREAM', KEYS[1]))
local groups, most = {}, tonumber(ARGV[1])
for i, flat in ipairs(redis.call('XINFO', 'GROUPS', KEYS[1])) do
  local group = pairs_of(flat)
  local waiting = #redis.call('XRANGE', KEYS[1], '(' .. group['last-delivered-id'], '+', 'COUNT', most + 1)
  groups[i] = {group.name, group['entries-read'] or -1, waiting > most and -1 or waiting, group.pending}
end
return {lane['entries-added'], lane.length, groups}
