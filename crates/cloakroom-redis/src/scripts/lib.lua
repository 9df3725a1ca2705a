-- What every script begins with.
--
-- A number of 64 bits is 8 bytes, most significant first: a Lua number would round it. NONE stands
-- for no number. Scores and times to live are Lua numbers; they never say what has ended, only where
-- to look.

local NONE = string.rep('\255', 8)
-- How long a key stays after the end of what it holds, in ms: one hour.
local MARGIN = 3600000
-- The latest time that a Lua number holds exactly.
local LATEST = 9007199254740991

local function number(bytes)
  local high, low = struct.unpack('>I4I4', bytes)
  return math.min(high * 4294967296 + low, LATEST)
end

local function bytes(number)
  return struct.pack('>I4I4', math.floor(number / 4294967296), number % 4294967296)
end

local function less(one, other)
  local high, low = struct.unpack('>I4I4', one)
  local other_high, other_low = struct.unpack('>I4I4', other)
  return high < other_high or (high == other_high and low < other_low)
end

local function digits(number)
  return string.format('%.0f', number)
end

-- An end of LATEST or later never comes.
local function score(bytes)
  local number = number(bytes)
  return number < LATEST and digits(number) or '+inf'
end

local function clock()
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end

-- Keeps a key until the end and the server's own time have passed by the margin; never shortens its life.
local function keep(key, last)
  local at = math.min(math.max(number(last), clock()) + MARGIN, LATEST)
  if redis.call('PEXPIRETIME', key) < at then
    redis.call('PEXPIREAT', key, digits(at))
  end
end
