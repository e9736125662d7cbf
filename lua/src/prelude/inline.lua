-- `test` and `todo` in a classic run (classic-api C-048, C-050): bodies run where they are
-- called. The runner (in Rust) is told of each start and end through `hooks`.
local P = ...

local type, tostring = type, tostring

-- The reason to leave a test out, from its meta table.
local function left_out(meta)
  local skip = meta.skip
  if type(skip) == "string" then return skip end
  if skip and skip ~= 0 then return "skipped (meta.skip)" end
end

function P.run_inline(hooks)
  P.inline_failed, P.used = false, false

  function P.inline(name, meta, fn)
    P.used = true
    hooks.started(name, meta or {})
    local file, line = P.frame(1)
    local rec = { name = name, meta = meta or {}, fn = fn, file = file, line = line }
    local reason = left_out(rec.meta)
    local record
    if reason then
      record = { status = "skipped", message = reason, log = {} }
    else
      local outer = P.running
      record = P.run_body(rec)
      P.running = outer
    end
    if record.status == "failed" then P.inline_failed = true end
    hooks.ended(name, meta or {}, record)
  end

  -- A file that never asks for `provium` is a library of others (C-055).
  local provium = provium
  _G.provium = nil
  setmetatable(_G, {
    __index = function(globals, key)
      if key ~= "provium" then return nil end
      P.used = true
      rawset(globals, "provium", provium)
      return provium
    end,
  })
end
