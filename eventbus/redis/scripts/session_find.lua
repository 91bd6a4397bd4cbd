-- What a session is. Reads only.
-- KEYS[1] state
-- ARGV[1] 0
-- Returns 'OK', status, state.
return told('OK')
