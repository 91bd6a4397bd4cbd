-- Add what a worker has counted of an organization's events to the minute that it is.
-- KEYS[1] minutes (HASH: place in the ring to 'minute done dead retried ran micros')
-- KEYS[2] failures (LIST of 'ms JSON', the latest first)  KEYS[3] number of the worker's last addition
-- ARGV[1] number of this one  ARGV[2] ms that all of it is kept  ARGV[3] minutes in the ring  ARGV[4] failures to keep
-- ARGV[5…9] done, dead, retried, ran, micros  ARGV[10…] failures, the oldest first
-- Returns 1, or 0 if this addition was made before: its reply was lost.
if redis.call('GET', KEYS[3]) == ARGV[1] then
  return 0
end
local now = server_ms()
local minute = math.floor(now / 60000)
local place = minute % ARGV[3]
local sums = {}
for number in string.gmatch(redis.call('HGET', KEYS[1], place) or '', '%d+') do
  sums[#sums + 1] = tonumber(number)
end
if sums[1] ~= minute or #sums ~= 6 then  -- an hour old, none, or not ours
  sums = {minute, 0, 0, 0, 0, 0}
end
for i = 2, 6 do
  sums[i] = sums[i] + ARGV[i + 3]
end
redis.call('HSET', KEYS[1], place, string.format('%.0f %.0f %.0f %.0f %.0f %.0f', unpack(sums)))
redis.call('PEXPIRE', KEYS[1], ARGV[2])
for i = 10, #ARGV do
  redis.call('LPUSH', KEYS[2], string.format('%.0f ', now) .. ARGV[i])
end
if #ARGV > 9 then
  redis.call('LTRIM', KEYS[2], 0, ARGV[4] - 1)
  redis.call('PEXPIRE', KEYS[2], ARGV[2])
end
redis.call('SET', KEYS[3], ARGV[1], 'PX', ARGV[2])
return 1
