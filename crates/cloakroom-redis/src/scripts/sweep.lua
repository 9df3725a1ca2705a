-- Revokes the grants among these that a bound covers, and removes from the owner's index what is
-- revoked or gone. Returns how many it could not read, which get tombstones.
-- KEYS owner, ends, grants. ARGV bound, at, end of a tombstone, client or nothing, ids of the grants.
local unreadable = 0
for i = 3, #KEYS do
  local id = ARGV[i + 2]
  local stored = stored_at(KEYS[i])
  local is_done = true
  if stored and is_grant(stored) then
    if not is_revoked(stored) then
      local length = struct.unpack('>I2', stored, 78)
      local client = string.sub(stored, 80, 79 + length)
      if (ARGV[4] == '' or ARGV[4] == client) and not less(ARGV[1], string.sub(stored, 10, 17)) then
        redis.call('HSET', KEYS[i], 'g', revoked(stored, ARGV[2]))
      else
        is_done = false
      end
    end
  elseif stored and not is_tombstone(stored) then
    unreadable = unreadable + 1
    redis.call('HSET', KEYS[i], 'g', '\0' .. ARGV[3])
    redis.call('ZADD', KEYS[2], score(ARGV[3]), id)
    keep(KEYS[i], ARGV[3])
    keep(KEYS[2], ARGV[3])
  end
  if is_done then
    redis.call('ZREM', KEYS[1], id)
  end
end
return unreadable
