-- Inserts a signing key if its generation is above the highest that was ever inserted.
-- KEYS keys. ARGV generation, version, body.
local highest = redis.call('HGET', KEYS[1], 'highest')
if highest and not less(highest, ARGV[1]) then return 0 end
redis.call('HSET', KEYS[1], 'highest', ARGV[1], ARGV[1], ARGV[2] .. ARGV[3])
return 1
