-- Revokes a grant; the first revocation counts. Leaves a tombstone where there is no grant that can be
-- read. Returns the grant.
-- KEYS grant, ends. ARGV id, at, end of a tombstone.
local stored = stored_at(KEYS[1])
if stored and is_grant(stored) then
  if not is_revoked(stored) then
    redis.call('HSET', KEYS[1], 'g', revoked(stored, ARGV[2]))
  end
  return stored
end
local last = ARGV[3]
if stored and is_tombstone(stored) and less(last, string.sub(stored, 2, 9)) then
  last = string.sub(stored, 2, 9)
end
redis.call('HSET', KEYS[1], 'g', '\0' .. last)
redis.call('ZADD', KEYS[2], score(last), ARGV[1])
keep(KEYS[1], last)
keep(KEYS[2], last)
return false
