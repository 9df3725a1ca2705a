-- Takes a step if nothing speaks against it. Otherwise it returns what is stored, for the caller to judge.
-- KEYS grant, ends. ARGV id, expected position, now, next grant or nothing, length of its client and
-- subject, when to look at it, last end, then the digest and the value of each token.
local stored = redis.call('HGET', KEYS[1], 'g')
local function may_be_taken()
  if not (stored and is_grant(stored)) or is_revoked(stored) then return false end
  local chain_end = string.sub(stored, 34, 41)
  if chain_end == NONE or string.sub(stored, 42, 77) ~= ARGV[2] then return false end
  for _, last in ipairs({chain_end, string.sub(stored, 18, 25), string.sub(stored, 26, 33)}) do
    if not less(ARGV[3], last) then return false end
  end
  local next = ARGV[4]
  if next ~= '' then
    local last = 77 + ARGV[5]
    if string.sub(next, 10, 17) ~= string.sub(stored, 10, 17)
      or less(string.sub(stored, 18, 25), string.sub(next, 18, 25))
      or string.sub(next, 78, last) ~= string.sub(stored, 78, last)
    then
      return false
    end
  end
  for i = 8, #ARGV, 2 do
    if redis.call('HEXISTS', KEYS[1], ARGV[i]) == 1 then return false end
  end
  return true
end
if not may_be_taken() then
  local reply = {stored}
  for i = 8, #ARGV, 2 do
    reply[#reply + 1] = redis.call('HGET', KEYS[1], ARGV[i])
  end
  return reply
end
if ARGV[4] ~= '' then
  redis.call('HSET', KEYS[1], 'g', ARGV[4])
end
for i = 8, #ARGV, 2 do
  redis.call('HSET', KEYS[1], ARGV[i], ARGV[i + 1])
end
redis.call('ZADD', KEYS[2], 'LT', score(ARGV[6]), ARGV[1])
keep(KEYS[1], ARGV[7])
keep(KEYS[2], ARGV[7])
return 1
