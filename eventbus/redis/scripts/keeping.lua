-- Stands before the scripts that put events into the schedule or take them out: what goes in and what comes out is counted
-- in the same step, see accounts.lua.

local function keep(due, bodies, counts, at, id, body)
  if redis.call('EXISTS', due) == 0 then  -- the schedule is empty: nothing in it is older than the counting
    redis.pcall('HSETNX', counts, 'since:', string.format('%.0f', server_ms()))
  end
  redis.call('HSET', bodies, id, body)
  redis.call('ZADD', due, at, id)
  redis.pcall('HINCRBY', counts, 'scheduled', 1)
end

-- Returns 1 if the event had a due time, else 0. One whose body was gone is not counted as withdrawn: it is lost.
local function withdraw(due, bodies, counts, id)
  local body, there = redis.call('HDEL', bodies, id), redis.call('ZREM', due, id)
  if body + there == 2 then
    redis.pcall('HINCRBY', counts, 'withdrawn', 1)
  end
  return there
end

