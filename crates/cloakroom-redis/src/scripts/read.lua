-- Reads the log after a cursor. Returns nothing if the cursor's place is gone.
-- KEYS state, log, ends of the log. ARGV incarnation of a new log, now, limit, then of a cursor its
-- incarnation, position, entry, and position and entry of the newest revocation or nothing.
local log = state(KEYS[1], KEYS[2], KEYS[3], ARGV[1], ARGV[2])
if log.is_new then write(KEYS[1], log) end
local function entry_at(position)
  local place = digits(position) .. '-0'
  local found = redis.call('XRANGE', KEYS[2], place, place)
  return found[1] and found[1][2][2]
end
local after = 0
if ARGV[4] then
  if ARGV[4] ~= log.incarnation then return false end
  after = number(ARGV[5])
  local entry = entry_at(after)
  if entry then
    if entry ~= ARGV[6] then return false end
  elseif log.position < after then
    return false
  elseif ARGV[7] ~= '' then
    -- It was trimmed. If the newest revocation is still there, only heartbeats were trimmed.
    after = number(ARGV[7])
    if entry_at(after) ~= ARGV[8] then return false end
  else
    after = 0
  end
end
local from = '(' .. digits(after) .. '-0'
return {log.incarnation, log.bound, bytes(after), redis.call('XRANGE', KEYS[2], from, '+', 'COUNT', ARGV[3])}
