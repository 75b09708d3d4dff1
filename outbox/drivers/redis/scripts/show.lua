#!lua flags=no-writes
-- Live jobs as an operator sees them, in the order in which they would be claimed.
--
-- KEYS  the keys of the queue, as in common/base.lua
-- ARGV  1 how many at most  2 … only these ids, if there are any
--
-- Returns this server's time, and then for each job: id, priority, available_at, the job, and what `held` and `tries`
-- have of it, "" for nothing.

local limit, wanted = tonumber(ARGV[1]), {}
for position = 2, #ARGV do
  wanted[position - 1] = ARGV[position]
end

local function found_in(key, room)
  if #wanted == 0 then
    local all = redis.pcall('ZRANGE', key, 0, room - 1, 'WITHSCORES')
    return all.err and {} or all
  end
  local found = {}
  local scores = redis.call('TYPE', key).ok == 'zset' and read('ZMSCORE', key, wanted) or {}
  for position, score in ipairs(scores) do
    if score then
      found[#found + 1] = wanted[position]
      found[#found + 1] = score
    end
  end
  return found
end

local answer = { digits(now()) }
local room = limit
for priority = 0, 9 do
  local found = room > 0 and found_in(KEYS[ZERO + priority], room) or {}
  local ids, scores = {}, {}
  for position = 1, #found, 2 do
    ids[#ids + 1], scores[#scores + 1] = found[position], found[position + 1]
  end
  local jobs, held, tries = read('HMGET', KEYS[JOBS], ids), read('HMGET', KEYS[HELD], ids), read('HMGET', KEYS[TRIES], ids)
  for position, id in ipairs(ids) do
    local row = { id, tostring(priority), scores[position], jobs[position] or '', held[position] or '', tries[position] or '' }
    for _, value in ipairs(row) do
      answer[#answer + 1] = value
    end
  end
  room = room - #ids
end
return answer
