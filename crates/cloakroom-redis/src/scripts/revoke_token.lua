-- Revokes a token, if it is stored; the first revocation counts.
-- KEYS grant. ARGV digest, at.
local stored = redis.call('HGET', KEYS[1], ARGV[1])
if stored and #stored >= 24 and string.sub(stored, 17, 24) == NONE then
  redis.call('HSET', KEYS[1], ARGV[1], string.sub(stored, 1, 16) .. ARGV[2] .. string.sub(stored, 25))
end
return 1
