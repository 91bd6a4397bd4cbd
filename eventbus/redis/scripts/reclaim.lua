-- Take over entries of the pending list: retries that are due, then entries whose lease ran out.
-- KEYS[1] stream  KEYS[2] retry (ZSET: entry id by ms)  KEYS[3] failures (HASH)  KEYS[4] crashes (HASH)
-- ARGV[1] group  ARGV[2] consumer  ARGV[3] lease in ms  ARGV[4] credit
-- ARGV[5] crashes that make an entry a suspect
-- ARGV[6] '1': take suspects and nothing else  ARGV[7] the consumer under which entries rest
-- ARGV[8] '1': leave running leases' ends alone (this connection is younger than a lease)
-- ARGV[9] ms after which an idle consumer without entries is forgotten
-- ARGV[10] crashes that condemn an entry: whoever takes it buries it
-- Returns {ms until the next retry is due or -1, 1 if suspects wait, {{entry id, fields, failures, crashes}, …}}.
-- What suspects are: see eventbus/isolation.py.
-- Among them may be entries that the caller holds already, if it was late with renewing them: it knows what it holds.
local stream, retry, failures, crashes = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local group, me, lease, credit = ARGV[1], ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4])
local suspect_from, condemned_from = tonumber(ARGV[5]), tonumber(ARGV[10])
local only_suspects, parked = ARGV[6] == '1', ARGV[7]
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local taken, waiting = {}, 0

-- Claims an entry unless it is of the other kind; `count` is what its crashes are from now on.
local function take(id, count, idle)
  local suspect = count >= suspect_from and count < condemned_from
  if suspect and not only_suspects then
    waiting = 1
  end
  if suspect ~= only_suspects or #taken >= credit then
    return
  end
  redis.call('ZREM', retry, id)
  if count > 0 then
    redis.call('HSET', crashes, id, count)
  end
  local claimed = redis.call('XCLAIM', stream, group, me, idle, id)
  if #claimed == 0 or not claimed[1] then  -- deleted from the stream: Redis has dropped it from the pending list
    redis.call('HDEL', failures, id)
    redis.call('HDEL', crashes, id)
    return
  end
  taken[#taken + 1] = {id, claimed[1][2], redis.call('HGET', failures, id) or '', count}
end

local function crashes_of(id)
  return tonumber(redis.call('HGET', crashes, id) or 0)
end

-- More than the credit is looked at, so that suspects at the head do not hide what is behind them.
for _, id in ipairs(redis.call('ZRANGEBYSCORE', retry, '-inf', now, 'LIMIT', 0, credit + 100)) do
  take(id, crashes_of(id), 0)
end

for _, info in ipairs(redis.call('XINFO', 'CONSUMERS', stream, group)) do
  local consumer = {}
  for i = 1, #info, 2 do
    consumer[info[i]] = info[i + 1]
  end
  if consumer.name == parked then
    -- Everything that rests needs a due time. If the set was lost, what is missing from it is due now.
    if consumer.pending > redis.call('ZCARD', retry) then
      for _, entry in ipairs(redis.call('XPENDING', stream, group, '-', '+', consumer.pending, parked)) do
        redis.pcall('ZADD', retry, 'NX', now, entry[1])  -- if memory is used up: another time
      end
    end
  elseif consumer.pending == 0 then
    if consumer.idle > tonumber(ARGV[9]) then
      redis.call('XGROUP', 'DELCONSUMER', stream, group, consumer.name)
    end
  elseif ARGV[8] ~= '1' then
    -- Mine, and not renewed: its reply was lost on the way to me, and nobody died of it.
    local crash = consumer.name == me and 0 or 1
    for _, entry in ipairs(redis.call('XPENDING', stream, group, 'IDLE', lease, '-', '+', credit + 100, consumer.name)) do
      take(entry[1], crashes_of(entry[1]) + crash, lease)
    end
  end
end

local next_due = redis.call('ZRANGEBYSCORE', retry, '(' .. now, '+inf', 'WITHSCORES', 'LIMIT', 0, 1)
return {next_due[2] and next_due[2] - now or -1, waiting, taken}
