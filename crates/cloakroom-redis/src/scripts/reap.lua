-- Deletes the tokens of a grant that have ended, and the grant if it has ended and has no tokens.
-- Returns how many grants, tokens, tombstones and values that cannot be read it removed, and whether
-- tokens are left.
-- KEYS grant, ends, then subject and client if the caller could read them. ARGV id, before.
local id, before = ARGV[1], ARGV[2]
local stored = stored_at(KEYS[1])
local function forget()
  redis.call('DEL', KEYS[1])
  for i = 2, #KEYS do
    redis.call('ZREM', KEYS[i], id)
  end
end
if not stored then
  forget()
  return {0, 0, 0, 0}
end
if is_tombstone(stored) then
  local last = string.sub(stored, 2, 9)
  if less(last, before) then
    forget()
    return {0, 0, 1, 0}
  end
  redis.call('ZADD', KEYS[2], score(last), id)
  return {0, 0, 0, 0}
end
if not is_grant(stored) then
  -- Its ends are unknown. The server removes the key when its time to live is over.
  redis.call('HSET', KEYS[1], 'g', '\0' .. NONE)
  redis.call('ZREM', KEYS[2], id)
  keep(KEYS[1], before)
  return {0, 0, 0, 1}
end
local ended, earliest = {}, nil
local fields = redis.call('HGETALL', KEYS[1])
for i = 1, #fields, 2 do
  if fields[i] ~= 'g' then
    local last = #fields[i + 1] >= 24 and string.sub(fields[i + 1], 1, 8) or string.rep('\0', 8)
    if less(last, before) then
      ended[#ended + 1] = fields[i]
    elseif not earliest or less(last, earliest) then
      earliest = last
    end
  end
end
local row_end = string.sub(stored, 26, 33)
if not earliest and less(row_end, before) then
  forget()
  return {1, #ended, 0, 0}
end
for _, digest in ipairs(ended) do
  redis.call('HDEL', KEYS[1], digest)
end
redis.call('ZADD', KEYS[2], score(earliest or row_end), id)
return {0, #ended, 0, 0}
