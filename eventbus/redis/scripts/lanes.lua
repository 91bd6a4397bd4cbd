-- Stands before every script that deals with entries. An entry is named by its id in the lane of normal priority, and by
-- 'id@priority' in the others.
local QUEUED = 'queued'  -- the consumer under which entries of ordered groups wait: see ordering.lua

local function named(lane, id)
  return lane == 5 and id or id .. '@' .. lane
end

local function id_of(entry)
  return (string.match(entry, '^[^@]+'))
end

local function lane_of(entry)
  return tonumber(string.match(entry, '@(%d+)$')) or 5
end

local function ids_of(entries)
  local ids = {}
  for i, entry in ipairs(entries) do
    ids[i] = id_of(entry)
  end
  return ids
end

local function server_ms()
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end

-- A flat name, value, … list, as XINFO answers, by name.
local function pairs_of(flat)
  local found = {}
  for i = 1, #flat, 2 do
    found[flat[i]] = flat[i + 1]
  end
  return found
end
