-- The value of a grant: a kind (1, or 0 for a tombstone), then of a grant
--   2-9 revoked at   10-17 epoch   18-25 ends at   26-33 row ends at   34-41 chain ends at
--   42-77 generation and digest of the chain   78- client and subject, each after its length   body
-- and of a tombstone 2-9 its end. `rows.rs` writes and reads the same.

local function is_grant(value)
  if #value < 81 or string.byte(value) ~= 1 then return false end
  local subject = 80 + struct.unpack('>I2', value, 78)
  return #value > subject and #value > subject + 1 + struct.unpack('>I2', value, subject)
end

local function is_tombstone(value)
  return #value == 9 and string.byte(value) == 0
end

local function is_revoked(value)
  return string.sub(value, 2, 9) ~= NONE
end

local function revoked(value, at)
  return string.sub(value, 1, 1) .. at .. string.sub(value, 10)
end

-- Reads a grant to change it. A key of another type is damage, and makes room for a tombstone.
local function stored_at(key)
  local value = redis.pcall('HGET', key, 'g')
  if type(value) == 'table' and value.err then
    redis.call('DEL', key)
    return ''
  end
  return value
end

-- The value of a token: 1-8 ends at   9-16 issued at   17-24 revoked at   body
