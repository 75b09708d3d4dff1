#!lua
-- Puts failed jobs back, with no attempts counted. Where a live job has the id, it stays as it is.
--
-- KEYS  the keys of the queue, as in common/base.lua
-- ARGV  1 only what failed at this time or before, or "+inf"  2 … ids
--
-- Returns those that it put back.

local latest, moment = tonumber(ARGV[1]) or math.huge, now()
local asked, ids, put_back, jobs = {}, {}, {}, {}
for position = 2, #ARGV do
  asked[position - 1] = ARGV[position]
end
for position, failed_at in ipairs(read('ZMSCORE', KEYS[FAILED], asked)) do
  if failed_at and tonumber(failed_at) <= latest then
    ids[#ids + 1] = asked[position]
  end
end
for position, failure in ipairs(read('HMGET', KEYS[FAILURES], ids)) do
  -- Behind the connection, the exception and the time of the first dispatch.
  local body = failure and string.match(failure, '^[^\n]*\n[^\n]*\n[^\n]*\n[^\n]*\n(.*)$')
  if body then
    local priority = tonumber(string.sub(failure, 1, 1)) or 5
    put_back[#put_back + 1] = ids[position]
    jobs[#jobs + 1] = { ids[position], 0, priority, moment, digits(moment) .. '\n' .. body }
  end
end
insert(jobs)
if #jobs > 0 then
  wake(string.match(KEYS[PAUSED], '{(.*)}'))
end
write('ZREM', KEYS[FAILED], put_back)
write('HDEL', KEYS[FAILURES], put_back)
return put_back
