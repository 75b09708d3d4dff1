-- Shared by the scripts that remove live jobs for an operator.

-- Notes for the relay those of these jobs that a database has sent, so that their rows leave it soon. The key of the list
-- follows those of the queue.
local function note_relayed_ends(ids)
  local relayed = {}
  for position, body in ipairs(read('HMGET', KEYS[JOBS], ids)) do
    if body and string.sub(body, 1, 1) == '+' then
      relayed[#relayed + 1] = ids[position]
    end
  end
  write('RPUSH', KEYS[KEYS_OF_A_QUEUE + 1], relayed)
end
