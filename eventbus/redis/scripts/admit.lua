#!lua flags=allow-oom
-- Who may start now, under all limits at once: the rule of eventbus/memory/limits.py, number by number. It may run where
-- memory is used up: without it nothing would be drained.
-- KEYS[1] lines (ZSET: what is told of a line, by when its last one was told to come)
-- then for each limit and key three: what it let start (of a rate a LIST: 'ms count'; of places a ZSET: member by the
-- end of its lease); its line (ZSET: member by the ms when it was told to come); of a rate the last slot that was given
-- away, in microseconds, of places when somebody started, in ms (STRING)
-- ARGV[1] lease in ms  ARGV[2] how many may start at the most  ARGV[3] ms after which to ask again for a place
-- ARGV[4] how many limits follow, each with five values: 'rate' or 'places', how many it allows, the span in ms, '1' if
-- it is by key and has a line, what is told of that
-- then for each member: its name, how many limits concern it, and their numbers
-- Returns the time in ms, then for each member two values: -1 if it may start (and is counted), 0 if nothing but ARGV[2] keeps it, else ms
-- after which to ask again; and the number of the limit that refuses it, 0 if none does.
-- All keys are read before anything is written, so that one of another type changes nothing.
local LATE, FARTHEST, MEMORY = 10000, 3653 * 86400000, 86400000
local NEAR, SHORTEST, LONGEST = 1000, 20, 1000
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local lease, most, ask_again = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])

local function whole(number)
  return string.format('%.0f', number)
end

local function keep(key, ms)
  if redis.call('PTTL', key) < ms then
    redis.call('PEXPIRE', key, whole(ms))
  end
end

local function look_at_rate(limit, span)
  -- A handler starts a little after it was let through: its start is counted so much longer.
  limit.span = span + math.min(50, math.floor(span / 40))
  -- Starts are summed up by hundredths of a span, rounded up: few entries tell of any number, and err towards fewer.
  limit.step = math.max(1, math.floor(limit.span / 100))
  limit.one = math.ceil((limit.span + limit.step) * 1000 / limit.count)
  limit.near, limit.free, limit.over = limit.span, limit.count, 0
  for _, start in ipairs(redis.call('LRANGE', limit.taken, 0, -1)) do
    local at, many = string.match(start, '^(%d+) (%d+)$')
    if tonumber(at) + limit.span <= now then
      limit.over = limit.over + 1
    else
      limit.first, limit.free = limit.first or tonumber(at), limit.free - many
    end
  end
end

local function look_at_places(limit)
  limit.near = NEAR
  limit.free = limit.count - redis.call('ZCOUNT', limit.taken, '(' .. whole(now), '+inf')
  limit.pause = limit.last and math.max(SHORTEST, math.min(LONGEST, math.floor((now - limit.last) / 4))) or LONGEST
end

local limits = {}
for i = 1, tonumber(ARGV[4]) do
  local limit, at = {taken = KEYS[3 * i - 1], line = KEYS[3 * i], started = 0, told = 0}, 5 * i
  limit.memory = KEYS[3 * i + 1]
  limit.rate, limit.count = ARGV[at] == 'rate', tonumber(ARGV[at + 1])
  limit.by_key, limit.name = ARGV[at + 3] == '1', ARGV[at + 4]
  limit.last = tonumber(redis.call('GET', limit.memory) or nil)
  if limit.rate then
    look_at_rate(limit, tonumber(ARGV[at + 2]))
  else
    look_at_places(limit)
  end
  limit.late = now - limit.near - LATE
  limit.waiting, limit.soon = 0, 0
  if limit.by_key then
    limit.waiting = redis.call('ZCOUNT', limit.line, '(' .. whole(limit.late), '+inf')
    limit.soon = redis.call('ZCOUNT', limit.line, '(' .. whole(limit.late), '(' .. whole(now + limit.near))
  end
  limits[i] = limit
end
redis.call('ZCARD', KEYS[1])
for _, limit in ipairs(limits) do  -- what does not count any more
  if limit.rate and limit.over > 0 then
    redis.call('LTRIM', limit.taken, limit.over, -1)
  elseif not limit.rate then
    redis.call('ZREMRANGEBYSCORE', limit.taken, '-inf', whole(now))
  end
  if limit.by_key then
    redis.call('ZREMRANGEBYSCORE', limit.line, '-inf', whole(limit.late))
  end
end

local function is_soon(limit, due)
  return due and due < now + limit.near and 1 or 0
end

local function stand(limit, member, due, before)
  redis.call('ZADD', limit.line, whole(due), member)
  limit.waiting = limit.waiting + (before and 0 or 1)
  limit.soon = limit.soon + is_soon(limit, due) - is_soon(limit, before)
  limit.told = math.max(limit.told, due)
end

local function stamp(limit)
  return math.ceil(now / limit.step) * limit.step
end

local function opens(limit)
  if not limit.rate then
    return now + ask_again
  end
  return limit.free > 0 and now or (limit.first or stamp(limit)) + limit.span
end

-- When a member is to come (again) that has no place in the line yet, or whose time has come; and the slot it is given.
local function turn(limit, due)
  if not limit.rate then
    local rank = due and redis.call('ZCOUNT', limit.line, '-inf', '(' .. whole(due)) or limit.waiting
    return math.min(now + (math.floor(rank / limit.count) + 1) * limit.pause, now + FARTHEST)
  elseif due then
    return math.max(opens(limit), now + 1)
  end
  local slot = math.max(limit.last or 0, opens(limit) * 1000 - limit.one, now * 1000) + limit.one
  slot = math.min(slot, (now + FARTHEST) * 1000)
  return math.ceil(slot / 1000), slot
end

-- When to come (again), and the slot, if this limit refuses it.
local function refusal(limit, member, due)
  if not limit.rate and redis.call('ZSCORE', limit.taken, member) then
    return nil
  end
  local free = limit.free > 0
  if not limit.by_key then
    return not free and math.max(opens(limit), now + 1) or nil
  elseif free and (due and due <= now or limit.soon - is_soon(limit, due) == 0) then
    return nil
  elseif due and due > now then
    return due
  end
  return turn(limit, due)
end

local function take(limit, member, due)
  if limit.rate then
    limit.first = limit.first or stamp(limit)
    limit.free = limit.free - 1
  else
    limit.free = limit.free - redis.call('ZADD', limit.taken, whole(now + lease), member)
    limit.last, limit.pause = now, SHORTEST
  end
  limit.started = limit.started + 1
  if due then
    redis.call('ZREM', limit.line, member)
    limit.waiting, limit.soon = limit.waiting - 1, limit.soon - is_soon(limit, due)
  end
end

local function ask(member, numbers)
  local dues, come, by, slot, whole_come, whole_by = {}, 0, nil, nil, 0, nil
  for _, number in ipairs(numbers) do
    local limit = limits[number]
    dues[number] = limit.waiting > 0 and tonumber(redis.call('ZSCORE', limit.line, member) or nil) or nil
    local when, given = refusal(limit, member, dues[number])
    if when and limit.by_key and when > come then
      come, by, slot = when, number, given
    elseif when and not limit.by_key and when > whole_come then
      whole_come, whole_by = when, number
    end
  end
  if by then
    stand(limits[by], member, come, dues[by])
    limits[by].last, limits[by].moved = slot or limits[by].last, limits[by].moved or slot
  end
  if by or whole_by then
    come = by and come or whole_come
    for number, due in pairs(dues) do  -- who has a place in a line keeps it until it comes again
      if number ~= by and due < come then
        stand(limits[number], member, come, due)
      end
    end
    return come - now, by or whole_by
  elseif most < 1 then
    return 0, 0
  end
  most = most - 1
  for _, number in ipairs(numbers) do
    take(limits[number], member, dues[number])
  end
  return -1, 0
end

local answers, at = {now}, 5 + 5 * #limits
while at <= #ARGV do
  local numbers = {}
  for i = 1, tonumber(ARGV[at + 1]) do
    numbers[i] = tonumber(ARGV[at + 1 + i])
  end
  answers[#answers + 1], answers[#answers + 2] = ask(ARGV[at], numbers)
  at = at + 2 + #numbers
end

local function note_starts(limit)
  local at, many = whole(stamp(limit)), limit.started
  local last = redis.call('LINDEX', limit.taken, -1)
  if last and string.match(last, '^%d+') == at then
    redis.call('LSET', limit.taken, -1, at .. ' ' .. whole(string.match(last, '%d+$') + many))
  else
    redis.call('RPUSH', limit.taken, at .. ' ' .. whole(many))
  end
  redis.call('PEXPIRE', limit.taken, whole(limit.span + limit.step + 1000))
end

for _, limit in ipairs(limits) do
  if limit.rate and limit.started > 0 then
    note_starts(limit)
  elseif limit.started > 0 then
    redis.call('PEXPIRE', limit.taken, whole(2 * lease))
  end
  if limit.by_key and (limit.moved or not limit.rate and limit.started > 0) then
    redis.call('SET', limit.memory, whole(limit.last), 'PX', whole(math.max(limit.told, now) - now + MEMORY))
  end
  if limit.told > 0 then
    keep(limit.line, limit.told - now + limit.near + LATE)
    redis.call('ZADD', KEYS[1], 'GT', whole(limit.told), limit.name)
    keep(KEYS[1], limit.told - now + LATE)
  end
end
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', whole(now - LATE))
return answers
