-- Inserts a grant with its tokens if its id is free. Otherwise it returns what is stored under the id.
-- KEYS grant, ends, subject, client. ARGV id, grant, when to look at it first, last end, then the
-- digest and the value of each token.
local stored = redis.call('HGET', KEYS[1], 'g')
if stored then
  local reply = {stored}
  for i = 5, #ARGV, 2 do
    reply[#reply + 1] = redis.call('HGET', KEYS[1], ARGV[i])
  end
  return reply
end
redis.call('HSET', KEYS[1], 'g', ARGV[2])
for i = 5, #ARGV, 2 do
  redis.call('HSET', KEYS[1], ARGV[i], ARGV[i + 1])
end
redis.call('ZADD', KEYS[2], score(ARGV[3]), ARGV[1])
redis.call('ZADD', KEYS[3], 0, ARGV[1])
redis.call('ZADD', KEYS[4], 0, ARGV[1])
for i = 1, 4 do
  keep(KEYS[i], ARGV[4])
end
return 1
