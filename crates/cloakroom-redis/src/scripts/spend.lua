-- Spends an item. The server removes it at its end, and refuses what ends no later than the server's
-- own time: a forgotten item cannot be spent again.
-- KEYS item. ARGV until, now. Returns 1 if it was not spent before.
local until_, now = ARGV[1], ARGV[2]
if not less(bytes(clock()), until_) then return 0 end
local stored = redis.call('GET', KEYS[1])
local is_held = stored and #stored == 8 and less(now, stored)
if is_held and not less(stored, until_) then return 0 end
if not is_held and not less(now, until_) then return 0 end
redis.call('SET', KEYS[1], until_, 'PXAT', digits(number(until_)))
return is_held and 0 or 1
