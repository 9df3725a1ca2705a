-- Replaces or deletes a signing key if its version is still the expected one.
-- KEYS keys. ARGV generation, expected version, then the version and the body of the new record.
local stored = redis.call('HGET', KEYS[1], ARGV[1])
if not stored or string.sub(stored, 1, 8) ~= ARGV[2] then return 0 end
if ARGV[3] then
  redis.call('HSET', KEYS[1], ARGV[1], ARGV[3] .. ARGV[4])
else
  redis.call('HDEL', KEYS[1], ARGV[1])
end
return 1
