-- What is shared by the scripts that know which jobs a database sent.
--
--   outbox:{queue}:relayed  zset  id by when it was last sent: forgotten when that is KEPT ago
--
-- A job whose row is gone is known for a while longer: a process that froze just before it sent the row, or a network
-- that held it back, would else bring a job that has ended as a new one. Its score is then such that KEPT ends in a
-- WHILE.

local KEPT, WHILE = 30 * 24 * 3600 * 1000000, 600 * 1000000

-- Rows are sent again every day at the latest: what has not been sent for so long has none any more.
local function forget_old(relayed, moment)
  redis.call('ZREMRANGEBYSCORE', relayed, '-inf', digits(moment - KEPT))
end
