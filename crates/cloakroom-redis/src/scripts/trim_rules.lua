-- Removes rules that have ended. Returns how many.
-- KEYS ends of rules, rules. ARGV before, keys of the rules.
local count = 0
for i = 2, #KEYS do
  local stored = redis.call('GET', KEYS[i])
  if not stored or #stored ~= 16 or less(string.sub(stored, 9, 16), ARGV[1]) then
    redis.call('DEL', KEYS[i])
    redis.call('ZREM', KEYS[1], ARGV[i])
    count = count + 1
  else
    redis.call('ZADD', KEYS[1], score(string.sub(stored, 9, 16)), ARGV[i])
  end
end
return count
