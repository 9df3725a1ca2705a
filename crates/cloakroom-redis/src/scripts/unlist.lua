-- Removes grants that are revoked or gone from an owner's index.
-- KEYS owner, grants. ARGV ids of the grants.
for i = 2, #KEYS do
  local stored = redis.call('HGET', KEYS[i], 'g')
  if not stored or is_tombstone(stored) or (is_grant(stored) and is_revoked(stored)) then
    redis.call('ZREM', KEYS[1], ARGV[i - 1])
  end
end
return 1
