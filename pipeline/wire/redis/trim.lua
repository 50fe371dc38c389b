-- Forget the entries before the part that begins with an entry.
-- KEYS: frames, meta, parts. ARGV: claim, stamp, number of that entry. Returns the bytes of payload freed. Errors: LOST, FENCED generation.
local meta = redis.call('HMGET', KEYS[2], 'claim', 'stamp', 'generation')
if not meta[1] or meta[2] ~= ARGV[2] then
  return redis.error_reply('LOST')
end
if meta[1] ~= ARGV[1] then
  return redis.error_reply('FENCED ' .. meta[3])
end
local function bytes_before(part)
  return tonumber(string.match(part, ':(%d+)$'))
end
local oldest = redis.call('ZRANGE', KEYS[3], 0, 0)
local kept = redis.call('ZRANGEBYSCORE', KEYS[3], ARGV[3], ARGV[3])
if #oldest == 0 or #kept == 0 then
  return 0
end
redis.call('XTRIM', KEYS[1], 'MINID', meta[2] .. '-' .. ARGV[3])
redis.call('ZREMRANGEBYSCORE', KEYS[3], '-inf', '(' .. ARGV[3])
return bytes_before(kept[1]) - bytes_before(oldest[1])
