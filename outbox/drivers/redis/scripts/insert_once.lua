#!lua
-- Stores jobs that come from a database, each of them once, however often it is sent. The row of a job stays in the
-- database until it is known to have ended here, and is sent again now and then.
--
-- KEYS  the keys of one queue, as in common/base.lua; then
--       outbox:{queue}:relayed, as in common/relayed.lua
-- ARGV  1 records  2 bodies, as in common/base.lua
--
-- Returns one character per job: "n" stored now, "l" still here, "e" was here and has ended.
--
-- Without the flag allow-oom: when the memory is used up, this is what Redis refuses, and everything else goes on.

local relayed = KEYS[KEYS_OF_A_QUEUE + 1]
local moment = now()
local ids = ids_of(ARGV[1], RECORD)
local jobs = unpack_jobs(ARGV[1], ARGV[2], moment)
local answers, new, sent = {}, {}, {}

for position, known in ipairs(read('ZMSCORE', relayed, ids)) do
  if not known then
    answers[position] = 'n'
    new[#new + 1] = jobs[position]
  elseif redis.call('HEXISTS', KEYS[JOBS], ids[position]) == 1 then
    answers[position] = 'l'
  else
    answers[position] = 'e'
  end
  -- One that has ended is forgotten no later for being sent once more.
  if answers[position] ~= 'e' then
    sent[#sent + 1] = digits(moment)
    sent[#sent + 1] = ids[position]
  end
end

-- settle.lua notes the ends of jobs whose time begins with a sign. To every reader it is the same time.
for _, job in ipairs(new) do
  job[5] = '+' .. job[5]
end
insert(new)
-- Several are for a claim that takes them together.
if #new > 1 or #new == 1 and run_blocking_claim(moment) ~= new[1][1] then
  wake(string.match(KEYS[PAUSED], '{(.*)}'))
end
if #sent > 0 then
  write('ZADD', relayed, sent)
  redis.call('PERSIST', relayed)
end
forget_old(relayed, moment)
return table.concat(answers)
