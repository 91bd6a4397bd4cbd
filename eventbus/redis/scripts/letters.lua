-- Stands before the scripts that take dead letters away.
-- Counts (HASH): removed:GROUP, dead letters that were taken away, of those that letters:GROUP counts; replayed,
-- discarded, expired, of all groups.
local function count_removed(key, id, group, how)
  redis.pcall('HINCRBY', key, how, 1)
  local since = redis.pcall('HGET', key, 'lettersSince:' .. group)
  if type(since) == 'string' and tonumber(string.match(id, '^%d+')) >= (tonumber(since) or math.huge) then
    redis.pcall('HINCRBY', key, 'removed:' .. group, 1)
  end
end

