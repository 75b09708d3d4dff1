#!lua flags=allow-oom
-- Removes failed jobs.
--
-- KEYS  the keys of the queue, as in common/base.lua
-- ARGV  pairs: an id, and the latest time of failure that is meant, or "+inf"
--
-- Returns those that it removed.

local asked, latest, ids = {}, {}, {}
for position = 1, #ARGV, 2 do
  asked[#asked + 1], latest[#latest + 1] = ARGV[position], tonumber(ARGV[position + 1]) or math.huge
end
for position, failed_at in ipairs(read('ZMSCORE', KEYS[FAILED], asked)) do
  if failed_at and tonumber(failed_at) <= latest[position] then
    ids[#ids + 1] = asked[position]
  end
end
write('ZREM', KEYS[FAILED], ids)
write('HDEL', KEYS[FAILURES], ids)
return ids
