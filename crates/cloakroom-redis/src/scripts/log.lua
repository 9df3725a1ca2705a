-- The state of the log: 1-16 incarnation   17-24 position of the newest entry   25-32 newest bound

-- The state. A log that is new, or has lost its state or its entries, starts again: readers see another
-- incarnation.
local function state(key, log, log_ends, incarnation, now)
  local stored = redis.call('GET', key)
  if stored and #stored == 32 then
    local position = number(string.sub(stored, 17, 24))
    if position == 0 or redis.call('EXISTS', log) == 1 then
      return {
        incarnation = string.sub(stored, 1, 16),
        position = position,
        bound = string.sub(stored, 25, 32),
      }
    end
  end
  redis.call('DEL', log, log_ends)
  local bound = bytes(clock())
  if less(bound, now) then bound = now end
  if stored and #stored == 32 and less(bound, string.sub(stored, 25, 32)) then
    bound = string.sub(stored, 25, 32)
  end
  return {incarnation = incarnation, position = 0, bound = bound, is_new = true}
end

local function write(key, state)
  redis.call('SET', key, state.incarnation .. bytes(state.position) .. state.bound)
end

-- The number after this one; the largest that fits into 63 bits stays.
local function following(number)
  local high, low = struct.unpack('>I4I4', number)
  low = low + 1
  if low == 4294967296 then high, low = high + 1, 0 end
  if high > 2147483647 then return number end
  return struct.pack('>I4I4', high, low)
end
