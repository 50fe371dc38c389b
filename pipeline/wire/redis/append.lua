-- Append entries behind the newest one: all of them, or none.
-- KEYS: frames, meta, parts. ARGV: claim, session, stamp, the newest number there has to be, then label and payload of each entry.
-- Returns the newest number. Errors: LOST, FENCED generation, LAST number (something before it is missing or was appended since).
local meta = redis.call('HMGET', KEYS[2], 'claim', 'session', 'stamp', 'last', 'generation', 'bytes')
if not meta[1] or meta[3] ~= ARGV[3] then
  return redis.error_reply('LOST')
end
if meta[1] ~= ARGV[1] then
  return redis.error_reply('FENCED ' .. meta[5])
end
if meta[2] ~= ARGV[2] or meta[4] ~= ARGV[4] then
  return redis.error_reply('LAST ' .. meta[4])
end
local number, bytes = tonumber(meta[4]), tonumber(meta[6])
for at = 5, #ARGV, 2 do
  number = number + 1
  local name = string.format('%.0f', number)
  redis.call('XADD', KEYS[1], meta[3] .. '-' .. name, 'l', ARGV[at], 'p', ARGV[at + 1])
  if string.sub(ARGV[at], 1, 4) == 'h.0.' then
    redis.call('ZADD', KEYS[3], number, name .. ':' .. string.format('%.0f', bytes))
  end
  bytes = bytes + #ARGV[at + 1]
end
redis.call('HSET', KEYS[2], 'last', string.format('%.0f', number), 'bytes', string.format('%.0f', bytes))
return number
