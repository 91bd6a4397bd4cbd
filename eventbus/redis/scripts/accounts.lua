-- Stands before the scripts that compare what a stream has taken in with what its groups have made of it.
-- Counts of a stream (HASH), of which a group's are:
-- acked:LANE:GROUP, buried:LANE:GROUP  entries that were acknowledged or became dead letters, as ack.lua and bury.lua found
-- base:LANE:GROUP  entries of before the counting that are none of these; since:GROUP  ms at which the counting began
-- found:GROUP  ms at which it began, if the group was there before: workers of an older version may still be at work
-- noted:GROUP  entries that are known to be missing; gaps:GROUP  'from until count;…', when they were found to be
-- Of the schedule, which is looked at as a group without a name: scheduled, promoted into the lanes, withdrawn (cancelled, or
-- replaced by a later one), aside (dead letters, since they could not be delivered); base:0:, since:, found:, noted:, gaps:
local function counts_of(key)
  local flat = redis.pcall('HGETALL', key)
  return flat.err and {} or pairs_of(flat)
end

local function count_of(counts, name, lane, group)
  return tonumber(counts[name .. ':' .. lane .. ':' .. group]) or 0
end

-- Entries that a group has not been given, or nil if the server has lost count and they are many: something was deleted.
local function waiting_of(lane, length, group)
  if length == 0 then
    return 0
  elseif group.lag then
    return math.min(group.lag, length)  -- it counts what was trimmed from outside, and no more can wait than there is
  end
  local waiting = #redis.call('XRANGE', lane, '(' .. group['last-delivered-id'], '+', 'COUNT', 1000)
  return waiting < 1000 and waiting or nil
end

-- The schedule: what has gone in and is neither there nor counted as it went out. nil if there never was anything in it.
local function schedule_of(due, bodies, counts)
  local dues, kept = redis.pcall('ZCARD', due), redis.pcall('HLEN', bodies)
  if type(dues) ~= 'number' or type(kept) ~= 'number' then  -- of another type: nothing else waits for that to be mended
    return {open = {}, known = false}
  end
  local there = math.max(dues, kept)
  if there > 0 or counts['since:'] then
    local went = {scheduled = 0, promoted = 0, withdrawn = 0, aside = 0}
    for name in pairs(went) do
      went[name] = tonumber(counts[name]) or 0
    end
    return {open = {[0] = went.scheduled - went.promoted - went.withdrawn - went.aside - there}, known = true}
  end
end

-- By group: `open`, by lane the entries that are neither settled nor pending nor before the group; `known`, false if that
-- cannot be told of each lane, because the server has lost count.
local function groups_of(lanes, due, bodies, counts)
  local groups = {[''] = schedule_of(due, bodies, counts)}
  for lane, key in ipairs(lanes) do
    if redis.call('EXISTS', key) == 1 then
      local stream = pairs_of(redis.call('XINFO', 'STREAM', key))
      for _, flat in ipairs(redis.call('XINFO', 'GROUPS', key)) do
        local info = pairs_of(flat)
        local group = groups[info.name] or {open = {}, known = true}
        groups[info.name] = group
        local waiting = waiting_of(key, stream.length, info)
        if waiting then
          local settled = count_of(counts, 'acked', lane, info.name) + count_of(counts, 'buried', lane, info.name)
          group.open[lane] = stream['entries-added'] - info.pending - waiting - settled
        else
          group.known = false
        end
      end
    end
  end
  return groups
end

-- Take it that nothing is missing now. Where there is no memory: another time.
local function begin_count(key, name, group, now)
  local fields = {'since:' .. name, string.format('%.0f', now)}
  for lane, open in pairs(group.open) do
    fields[#fields + 1] = 'base:' .. lane .. ':' .. name
    fields[#fields + 1] = string.format('%.0f', open)
  end
  redis.pcall('HSET', key, unpack(fields))
  redis.pcall('HSETNX', key, 'found:' .. name, string.format('%.0f', now))
end

local function missing_of(counts, name, group)
  local missing = 0
  for lane, open in pairs(group.open) do
    missing = missing + open - count_of(counts, 'base', lane, name)
  end
  return missing
end

