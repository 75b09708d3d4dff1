#!lua flags=no-writes
-- A part of the live jobs of one priority, in the order in which they would be claimed, through a filter.
--
-- KEYS  the keys of the queue, as in common/base.lua
-- ARGV  1 the priority  2, 3 the score and the id of the job to begin behind, or "" and ""  4 how many jobs to look at
--       5 how many to return at most  6 only jobs of this name, "" for all  7 only jobs in this state, "" for all
--       8 only jobs with a key of this name, "" for all
--
-- Returns this server's time, how many jobs were looked at, the score and the id of the last of them, and then for each
-- job that passed: id, priority, available_at, the job, and what `held` and `tries` have of it, "" for nothing. No job
-- is behind those looked at if they are fewer than there were to be.

local key, span, limit = KEYS[ZERO + tonumber(ARGV[1])], tonumber(ARGV[4]), tonumber(ARGV[5])
local name, state, wanted, moment = ARGV[6], ARGV[7], ARGV[8], now()

-- How many jobs come before the first behind (score, id): ids of one moment can be more than one part.
local function behind(score, id)
  local low, high = 0, redis.call('ZCARD', key)
  while low < high do
    local middle = math.floor((low + high) / 2)
    local at = redis.call('ZRANGE', key, middle, middle, 'WITHSCORES')
    local there = tonumber(at[2])
    if there > score or there == score and at[1] > id then
      high = middle
    else
      low = middle + 1
    end
  end
  return low
end

local function state_of(score, held, tries)
  if score <= moment then
    return 'ready'
  elseif held then
    return 'reserved'
  end
  return tries and #tries > 21 and 'retrying' or 'delayed'
end

local function has_key(job)
  local read, headers = pcall(cjson.decode, string.match(job, '^[^\n]*\n[^\n]*\n([^\n]*)') or '')
  local keys = read and type(headers) == 'table' and headers.keys
  if type(keys) == 'table' then
    for _, key in pairs(keys) do
      if type(key) == 'table' and key.name == wanted then
        return true
      end
    end
  end
  return false
end

local first = #ARGV[2] > 0 and behind(tonumber(ARGV[2]), ARGV[3]) or 0
if #state > 0 and state ~= 'ready' then
  first = math.max(first, redis.call('ZCOUNT', key, '-inf', digits(moment)))
end
local found = redis.call('ZRANGE', key, first, first + span - 1, 'WITHSCORES')
local ids, scores = {}, {}
for position = 1, #found, 2 do
  if state == 'ready' and tonumber(found[position + 1]) > moment then
    break
  end
  ids[#ids + 1], scores[#scores + 1] = found[position], found[position + 1]
end
local jobs, held, tries = read('HMGET', KEYS[JOBS], ids), read('HMGET', KEYS[HELD], ids), read('HMGET', KEYS[TRIES], ids)
local answer, passed, last = { digits(moment) }, 0, 0
for position, id in ipairs(ids) do
  local job = jobs[position] or ''
  local fits = #name == 0 or string.match(job, '^[^\n]*\n([^\n]*)') == name
  fits = fits and (#wanted == 0 or has_key(job))
  if fits and (#state == 0 or state_of(tonumber(scores[position]), held[position], tries[position]) == state) then
    passed = passed + 1
    local row = { id, ARGV[1], scores[position], job, held[position] or '', tries[position] or '' }
    for column, value in ipairs(row) do
      answer[4 + (passed - 1) * #row + column] = value
    end
  end
  last = position
  if passed == limit then
    break
  end
end
answer[2], answer[3], answer[4] = tostring(last), scores[last] or '', ids[last] or ''
return answer
