-- A service has failed: count it, and open its circuit if that was too many in a row, or the one that was let through.
-- KEYS[1] circuits (HASH: name to 'failures open-until-ms probed-until-ms touched-ms'; open-until 0: closed)
-- ARGV[1] name  ARGV[2] failures that open it  ARGV[3] ms that it is open then
-- ARGV[4] ms after which a failure is not in a row with the next  ARGV[5] ms until all is forgotten, if none follows
-- Returns 1 if it is open now, else 0.
local now = server_ms()
local state = redis.call('HGET', KEYS[1], ARGV[1]) or ''
local failures, open_until, probed_until, touched = state:match('(%d+) (%d+) (%d+) (%d+)')
failures, open_until, touched = tonumber(failures) or 0, tonumber(open_until) or 0, tonumber(touched) or 0
if open_until == 0 and now - touched > tonumber(ARGV[4]) then
  failures = 0
end
failures = failures + 1
if open_until <= now and (open_until > 0 or failures >= tonumber(ARGV[2])) then
  open_until, probed_until = now + ARGV[3], '0'
end
redis.call('HSET', KEYS[1], ARGV[1], string.format('%d %.0f %s %.0f', failures, open_until, probed_until or '0', now))
redis.call('PEXPIRE', KEYS[1], ARGV[5])
return open_until > 0 and 1 or 0
