-- Appends an entry, and with it, in the same step, its bound, its rule and the record of the work to do.
-- An entry that is sent twice is there once. Returns the bound.
-- KEYS state, log, ends of the log, recent ids, work, order of work, rule, ends of rules.
-- ARGV id, entry, at, until, kind (b: has a bound; h: heartbeat; otherwise nothing), incarnation of a
-- new log, end of the rule or nothing, key of the rule, work or nothing, last end.
local id, at = ARGV[1], ARGV[3]
local now = clock()
-- A driver sends again within seconds.
redis.call('ZREMRANGEBYSCORE', KEYS[4], '-inf', digits(math.max(now - 120000, 0)))
if redis.call('ZSCORE', KEYS[4], id) then
  local work = redis.call('HGET', KEYS[5], id)
  return work and string.sub(work, 10, 17) or NONE
end
local log = state(KEYS[1], KEYS[2], KEYS[3], ARGV[6], at)
local bound = NONE
if ARGV[5] == 'b' then
  bound = following(log.bound)
  if less(bound, at) then bound = at end
  log.bound = bound
elseif ARGV[5] == 'h' and less(log.bound, at) then
  log.bound = at
end
log.position = log.position + 1
write(KEYS[1], log)
local place = digits(log.position) .. '-0'
redis.call('XADD', KEYS[2], place, 'i', id, 'b', bound, 'e', ARGV[2])
redis.call('ZADD', KEYS[3], score(ARGV[4]), place)
if ARGV[7] ~= '' then
  local rule_bound, rule_end = bound, ARGV[7]
  local stored = redis.call('GET', KEYS[7])
  if stored and #stored == 16 then
    local stored_bound, stored_end = string.sub(stored, 1, 8), string.sub(stored, 9, 16)
    if rule_bound ~= NONE and (stored_bound == NONE or less(rule_bound, stored_bound)) then
      rule_bound = stored_bound
    end
    if less(rule_end, stored_end) then rule_end = stored_end end
  end
  redis.call('SET', KEYS[7], rule_bound .. rule_end, 'KEEPTTL')
  redis.call('ZADD', KEYS[8], score(rule_end), ARGV[8])
  keep(KEYS[7], rule_end)
  keep(KEYS[8], rule_end)
end
if ARGV[9] ~= '' then
  redis.call('HSET', KEYS[5], id, 'o' .. ARGV[4] .. bound .. ARGV[9])
  redis.call('ZADD', KEYS[6], 0, id)
  keep(KEYS[5], ARGV[10])
  keep(KEYS[6], ARGV[10])
end
redis.call('ZADD', KEYS[4], digits(now), id)
redis.call('PEXPIRE', KEYS[4], 180000)
return bound
