-- Removes entries of the log that have ended, but not the newest. Returns how many, and whether more
-- have ended.
-- KEYS log, ends of the log. ARGV before, limit.
local newest = redis.call('XREVRANGE', KEYS[1], '+', '-', 'COUNT', 1)
newest = newest[1] and newest[1][1]
local limit = tonumber(ARGV[2])
local ended = redis.call('ZRANGEBYSCORE', KEYS[2], '-inf', '(' .. score(ARGV[1]), 'LIMIT', 0, limit + 2)
local count = 0
for _, place in ipairs(ended) do
  if place ~= newest then
    if count == limit then return {count, 1} end
    redis.call('XDEL', KEYS[1], place)
    redis.call('ZREM', KEYS[2], place)
    count = count + 1
  end
end
return {count, 0}
