-- Closes or removes the record of some work, or notes its progress.
-- KEYS work, order of work. ARGV id, what to do (close, remove, or progress), the last grant looked at.
local record = redis.call('HGET', KEYS[1], ARGV[1])
if ARGV[2] == 'remove' or not record then
  redis.call('HDEL', KEYS[1], ARGV[1], ARGV[1] .. 'c')
  redis.call('ZREM', KEYS[2], ARGV[1])
elseif ARGV[2] == 'progress' then
  redis.call('HSET', KEYS[1], ARGV[1] .. 'c', ARGV[3])
else
  redis.call('HDEL', KEYS[1], ARGV[1] .. 'c')
  redis.call('HSET', KEYS[1], ARGV[1], 'c' .. string.sub(record, 2))
  redis.call('ZADD', KEYS[2], digits(clock()), ARGV[1])
end
return 1
