-- wait_until: polling with a deadline (lua-api L-217, L-248, L-249).
local P = ...

local type, raise = type, P.raise
local natives = P.native._time

-- Reads one duration option; both are durations by the same grammar as everywhere.
local function duration(opts, key, default, what)
  local value = opts[key]
  if value == nil then return default end
  return natives.seconds(value, what .. ": " .. key)
end

local KEYS = { timeout = true, interval = true, desc = true }

-- Polls `pred` until it is truthy. Between two polls the guests of the file run for the
-- interval. `what` names the caller in messages, `suffix` is appended to the timeout message.
function P.poll(what, pred, opts, default_interval, suffix)
  if type(pred) ~= "function" then
    raise(what .. ": argument 1 (pred) must be a function, got " .. P.kind(pred))
  end
  if opts ~= nil and type(opts) ~= "table" then
    raise(what .. ": argument 2 (opts) must be a table, got " .. P.kind(opts))
  end
  opts = opts or {}
  for key in pairs(opts) do
    if not KEYS[key] then
      raise(what .. ": unknown option `" .. tostring(key)
        .. "` (known: timeout, interval, desc)")
    end
  end
  local timeout = duration(opts, "timeout", 10, what)
  local interval = duration(opts, "interval", default_interval, what)
  local desc = opts.desc == nil and "condition" or tostring(opts.desc)
  local watch = natives.stopwatch()
  while true do
    local value = pred()
    if value then return value end
    local over, left = natives.passed(watch, timeout)
    if over then
      raise(what .. ": " .. desc .. " not met within " .. natives.show(timeout) .. suffix)
    end
    natives.pause(math.min(interval, left))
  end
end

P.def("", "wait_until", "(pred: fun(): any, opts?: {timeout?, interval?, desc?}): any",
  "Calls `pred` every `interval` (0.1 s) until it returns something truthy, and returns that; "
  .. "raises when `timeout` (10 s) is over.",
  function(pred, opts)
    return P.poll("wait_until", pred, opts, 0.1, "")
  end)
