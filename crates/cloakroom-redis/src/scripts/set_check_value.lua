-- Changes a check value. KEYS values. ARGV name, expected value, new value: each after a 1, or a 0
-- alone for no value.
local stored = redis.call('HGET', KEYS[1], ARGV[1])
stored = stored and '1' .. stored or '0'
if stored == ARGV[3] then return 1 end
if stored ~= ARGV[2] then return 0 end
if ARGV[3] == '0' then
  redis.call('HDEL', KEYS[1], ARGV[1])
else
  redis.call('HSET', KEYS[1], ARGV[1], string.sub(ARGV[3], 2))
end
return 1
