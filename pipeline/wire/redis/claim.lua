-- Make the stream where there is none, and claim it: what earlier writers append from here on is refused.
-- KEYS: frames, meta, parts. ARGV: generation (0: claims whoever has claimed before), token of the writer, epoch of a new stream,
-- bytes of an entry, stamp of a stream that lost entries and is to be made anew ('': none). Returns claim, epoch, stamp, newest number. Errors: FENCED generation.
local was = redis.call('HMGET', KEYS[2], 'generation', 'token', 'stamp')
if was[1] and tonumber(ARGV[1]) > 0 and tonumber(was[1]) >= tonumber(ARGV[1]) and was[2] ~= ARGV[2] then
  return redis.error_reply('FENCED ' .. was[1])
end
if not was[1] or was[3] == ARGV[5] then
  local now = redis.call('TIME')
  local stamp = now[1] * 1000 + math.floor(now[2] / 1000)
  if was[1] then
    stamp = math.max(stamp, tonumber(was[3]) + 1)
  end
  redis.call('DEL', KEYS[1], KEYS[3])
  redis.call('HSET', KEYS[2], 'epoch', ARGV[3], 'stamp', string.format('%.0f', stamp), 'claim', was[1] and
    redis.call('HGET', KEYS[2], 'claim') or 0, 'session', 0, 'last', 0, 'bytes', 0)
end
redis.call('HINCRBY', KEYS[2], 'claim', 1)
redis.call('HSET', KEYS[2], 'generation', ARGV[1], 'token', ARGV[2], 'session', 0, 'payload', ARGV[4])
return redis.call('HMGET', KEYS[2], 'claim', 'epoch', 'stamp', 'last')
