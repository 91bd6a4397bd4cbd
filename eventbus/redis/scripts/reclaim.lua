-- Take over entries of the pending lists: retries that are due, then entries whose lease ran out.
-- KEYS[1…10] lanes  KEYS[11] retry (ZSET: entry by ms)  KEYS[12] failures (HASH)  KEYS[13] crashes (HASH)
-- ARGV[1] group  ARGV[2] consumer  ARGV[4] credit
-- ARGV[3] ms for which an entry must not have been renewed when this is meant to run, so that its lease is over;
-- '' if that is not known: then leases are left alone
-- ARGV[5] crashes that make an entry a suspect
-- ARGV[6] '1': take suspects and nothing else, half of those that died together  ARGV[7] the consumer under which entries rest
-- ARGV[8] server's time in ms at which this is meant to run, '' if not known  ARGV[9] crashes that condemn an entry:
-- whoever takes it buries it  ARGV[10] ms after which nobody waits for the answer any more
-- ARGV[11…] entries that are left to others: handlers of the caller, which has lost their leases, are still at them
-- Returns {ms until the next retry is due or -1, 1 if suspects wait, {{entry, fields, failures, crashes}, …}, how many
-- entries were pending before}.
-- What suspects are: see eventbus/consuming/suspects.py.
-- A server that stood still runs late what lay in its sockets meanwhile. Nobody could renew either: leases must be older
-- by as much as this is late. If the caller waits no more (ARGV[10]), nothing is taken: it would be lost for a lease.
-- Among the taken may be entries that the caller holds already, if it renewed them too late: it knows what it holds.
local retry, failures, crashes = KEYS[11], KEYS[12], KEYS[13]
local group, me, age, credit = ARGV[1], ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4])
local suspect_from, condemned_from = tonumber(ARGV[5]), tonumber(ARGV[9])
local only_suspects, parked = ARGV[6] == '1', ARGV[7]
local now = server_ms()
local late = math.max(0, now - (tonumber(ARGV[8]) or now))
if late > tonumber(ARGV[10]) then
  credit = 0
end
local taken, waiting, left_alone = {}, 0, {}
for i = 11, #ARGV do
  left_alone[ARGV[i]] = true
end

-- Claims an entry unless it is of the other kind; `count` is what its crashes are from now on.
local function take(entry, count, idle)
  if left_alone[entry] then
    return
  end
  local suspect = count >= suspect_from and count < condemned_from
  if suspect and not only_suspects then
    waiting = 1
  end
  if suspect ~= only_suspects or #taken >= credit then
    return
  end
  redis.call('ZREM', retry, entry)
  if count > 0 then
    redis.call('HSET', crashes, entry, count)
  end
  local claimed = redis.call('XCLAIM', KEYS[lane_of(entry)], group, me, idle, id_of(entry))
  if #claimed == 0 or not claimed[1] then  -- deleted from the stream: Redis has dropped it from the pending list
    redis.call('HDEL', failures, entry)
    redis.call('HDEL', crashes, entry)
    return
  end
  taken[#taken + 1] = {entry, claimed[1][2], redis.call('HGET', failures, entry) or '', count}
end

local function crashes_of(entry)
  return tonumber(string.match(redis.call('HGET', crashes, entry) or '', '^%d%d?%d?%d?%d?%d?$')) or 0
end

-- More than the credit is looked at, so that suspects at the head do not hide what is behind them. The urgent first: but
-- only among those that have waited longest, so that the others' turn comes.
local due = redis.call('ZRANGEBYSCORE', retry, '-inf', now, 'LIMIT', 0, credit + 100)
local place = {}
for i = #due, 1, -1 do
  local lane = string.match(due[i], '^%d+%-%d+$') and 5 or tonumber(string.match(due[i], '^%d+%-%d+@(%d%d?)$'))
  if lane and lane >= 1 and lane <= 10 then
    place[due[i]] = lane * 1000000 + i
  else  -- no entry is called so: somebody else has put it there, and it must not stand at the head for ever
    redis.call('ZREM', retry, table.remove(due, i))
  end
end
table.sort(due, function(a, b) return place[a] < place[b] end)
local sets = {{}}  -- what is due, then what each consumer held that let its leases run out: {entry, crashes, idle}
for i, entry in ipairs(due) do
  sets[1][i] = {entry, crashes_of(entry), 0}
end

local resting, pending, held_by = {}, 0, {}
for lane = 1, 10 do
  local summary = redis.call('XPENDING', KEYS[lane], group)
  local holders = summary[4] or {}
  pending = pending + summary[1]
  for _, holder in ipairs(holders) do
    local consumer, held = holder[1], tonumber(holder[2])
    if consumer == parked then
      resting[lane] = held
    elseif age and consumer ~= QUEUED then
      local set = held_by[consumer]
      if not set then
        -- Mine, and not renewed: its reply was lost on the way to me, and nobody died of it.
        set = {crash = consumer == me and 0 or 1, suspects = 0}
        held_by[consumer], sets[#sets + 1] = set, set
      end
      for _, held in ipairs(redis.call('XPENDING', KEYS[lane], group, 'IDLE', age + late, '-', '+', credit + 100, consumer)) do
        local entry = named(lane, held[1])
        local count = crashes_of(entry)
        set.suspects = set.suspects + (count >= suspect_from and 1 or 0)
        set[#set + 1] = {entry, count, age + late}
      end
    end
  end
end
for _, set in pairs(held_by) do
  for _, held in ipairs(set) do
    -- Of suspects that ran together one has done it, and nobody knows which: that is no crash of theirs.
    local together = held[2] >= suspect_from and set.suspects > 1
    held[2] = held[2] + (together and 0 or set.crash)
  end
end

if only_suspects then
  local chosen = nil  -- the smallest set: the guilty one is nearly found there
  for _, set in ipairs(sets) do
    local suspects = {}
    for _, held in ipairs(set) do
      if held[2] >= suspect_from and held[2] < condemned_from then
        suspects[#suspects + 1] = held
      end
    end
    if #suspects > 0 and (not chosen or #suspects < #chosen) then
      chosen = suspects
    end
  end
  sets = {chosen}
  credit = math.min(credit, math.ceil(#(chosen or {}) / 2))
end
for _, set in ipairs(sets) do
  for _, held in ipairs(set) do
    take(held[1], held[2], held[3])
  end
end

-- Everything that rests needs a due time. If the set was lost, what is missing from it is due now.
local rest = 0
for _, held in pairs(resting) do
  rest = rest + held
end
if rest > redis.call('ZCARD', retry) then
  for lane, held in pairs(resting) do
    for _, entry in ipairs(redis.call('XPENDING', KEYS[lane], group, '-', '+', held, parked)) do
      redis.pcall('ZADD', retry, 'NX', now, named(lane, entry[1]))  -- if memory is used up: another time
    end
  end
end

local next_due = redis.call('ZRANGEBYSCORE', retry, '(' .. now, '+inf', 'WITHSCORES', 'LIMIT', 0, 1)
return {next_due[2] and next_due[2] - now or -1, waiting, taken, pending}
