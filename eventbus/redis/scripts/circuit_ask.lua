-- May a service be called? Lets one caller through an open circuit, once its pause is over.
-- KEYS[1] circuits (HASH: name to 'failures open-until-ms probed-until-ms touched-ms'; open-until 0: closed)
-- ARGV[1] name  ARGV[2] ms that the one who is let through has
-- Returns 0, or ms after which to ask again.
local state = redis.call('HGET', KEYS[1], ARGV[1])
if not state then
  return 0
end
local failures, open_until, probed_until, touched = state:match('(%d+) (%d+) (%d+) (%d+)')
if not open_until or open_until == '0' then  -- what is no state says nothing
  return 0
end
local now = server_ms()
local wait = math.max(tonumber(open_until), tonumber(probed_until)) - now
if wait > 0 then
  return wait
end
redis.call('HSET', KEYS[1], ARGV[1], string.format('%s %s %.0f %s', failures, open_until, now + ARGV[2], touched))
return 0
