-- Begins the log if there is none, and raises the newest bound.
-- KEYS state, log, ends of the log. ARGV incarnation of a new log, now.
local log = state(KEYS[1], KEYS[2], KEYS[3], ARGV[1], ARGV[2])
if less(log.bound, ARGV[2]) then
  log.bound, log.is_new = ARGV[2], true
end
if log.is_new then write(KEYS[1], log) end
return 1
