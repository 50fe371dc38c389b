-- Begin another session of the same claim: what the one before has sent and is still on its way is refused from here on.
-- KEYS: frames, meta, parts. ARGV: claim, stamp. Returns session, newest number. Errors: LOST, FENCED generation.
local meta = redis.call('HMGET', KEYS[2], 'claim', 'stamp', 'generation')
if not meta[1] or meta[2] ~= ARGV[2] then
  return redis.error_reply('LOST')
end
if meta[1] ~= ARGV[1] then
  return redis.error_reply('FENCED ' .. meta[3])
end
redis.call('HINCRBY', KEYS[2], 'session', 1)
return redis.call('HMGET', KEYS[2], 'session', 'last')
