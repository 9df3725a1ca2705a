-- The work to do: the record that is waited for, then open records, then closed ones that are done a
-- second time. Returns ids, records and progress, and whether there is more.
-- KEYS work, order of work. ARGV before, limit, how long a record stays after it was closed, the id
-- that is waited for or nothing.
local limit = tonumber(ARGV[2])
local ids, taken = {}, {}
local function take(id)
  if not taken[id] and #ids <= limit then
    taken[id] = true
    ids[#ids + 1] = id
  end
end
if ARGV[4] ~= '' and redis.call('ZSCORE', KEYS[2], ARGV[4]) == '0' then take(ARGV[4]) end
for _, id in ipairs(redis.call('ZRANGEBYSCORE', KEYS[2], '-inf', 0, 'LIMIT', 0, limit + 1)) do
  take(id)
end
local oldest = digits(math.max(clock() - ARGV[3], 0))
for _, id in ipairs(redis.call('ZRANGEBYSCORE', KEYS[2], '(0', oldest, 'LIMIT', 0, limit + 1)) do
  take(id)
end
-- Records whose entry has ended need not wait.
for _, id in ipairs(redis.call('ZRANGEBYSCORE', KEYS[2], '(0', '+inf', 'LIMIT', 0, limit + 1)) do
  local record = redis.call('HGET', KEYS[1], id)
  if not record or #record < 17 or less(string.sub(record, 2, 9), ARGV[1]) then take(id) end
end
local more = #ids > limit and 1 or 0
local reply = {more}
for i = 1, math.min(#ids, limit) do
  reply[#reply + 1] = {ids[i], redis.call('HGET', KEYS[1], ids[i]), redis.call('HGET', KEYS[1], ids[i] .. 'c')}
end
return reply
