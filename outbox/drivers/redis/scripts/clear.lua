#!lua flags=allow-oom
-- Removes a part of the jobs that nobody holds, going on from where an earlier call stopped.
--
-- KEYS  the keys of the queue, as in common/base.lua; then outbox:{queue}:ended, as in settle.lua
-- ARGV  1 the priority  2 the score to begin with  3 how many of exactly that score to pass over  4 how many to look at
--
-- Returns how many it removed, and where the next call begins: a score and a number, or nothing when this was the end.

local priority, from, skip, span = tonumber(ARGV[1]), ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4])
local moment, key = now(), KEYS[ZERO + tonumber(ARGV[1])]
local found = redis.call('ZRANGE', key, from, '+inf', 'BYSCORE', 'LIMIT', skip, span, 'WITHSCORES')
local ids, removed = {}, {}
for position = 1, #found, 2 do
  ids[#ids + 1] = found[position]
end
local last, kept = found[#found], 0
if last == from then
  kept = skip
end
for position, hold in ipairs(read('HMGET', KEYS[HELD], ids)) do
  local score = found[position * 2]
  if hold and tonumber(score) > moment then
    kept = kept + (score == last and 1 or 0)
  else
    removed[#removed + 1] = ids[position]
  end
end
write('ZREM', key, removed)
note_relayed_ends(removed)
for _, hash in ipairs({ JOBS, HELD, TRIES }) do
  write('HDEL', KEYS[hash], removed)
end
write('ZREM', KEYS[RETRYING], removed)
if #ids < span then
  return { #removed }
end
return { #removed, last, kept }
