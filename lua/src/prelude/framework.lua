-- The test framework of a v2 file (lua-api L-209..L-221): `test` registers, the runner (in
-- Rust) then runs the bodies one at a time through `P.run_body`.
local P = ...

local type, error, xpcall, getinfo = type, error, xpcall, debug.getinfo
local raise, catch = P.raise, P.catch

local tests, by_name = {}, {}
P.tests = tests

local function wrong(position, name, wanted, got)
  raise("test: argument " .. position .. " (" .. name .. ") must be " .. wanted
    .. ", got " .. P.kind(got))
end

P.def("", "test", "(name: string, meta?: table, fn: fun(t))",
  "Registers a test. Bodies run in order once the file has been read.",
  function(name, meta, fn)
    if fn == nil and type(meta) == "function" then meta, fn = nil, meta end
    if type(name) ~= "string" then wrong(1, "name", "a string", name) end
    if meta ~= nil and type(meta) ~= "table" then wrong(2, "meta", "a table", meta) end
    if type(fn) ~= "function" then
      wrong(meta == nil and 2 or 3, "fn", "a function", fn)
    end
    if P.inline then return P.inline(name, meta, fn) end
    if P.running then
      raise("test: cannot register `" .. name .. "` while test `" .. P.running.name
        .. "` is running")
    end
    if by_name[name] then raise("test: duplicate name `" .. name .. "` in this file") end
    by_name[name] = true
    local info = getinfo(fn, "S")
    local file, line = P.frame(1)
    tests[#tests + 1] = { name = name, meta = meta or {}, fn = fn,
      file = file or info.source:sub(2), line = line or info.linedefined }
  end)

P.def("", "todo", "(reason?: string)",
  "At file level: all tests of the file are skipped. In a test: that test is skipped.",
  function(reason)
    reason = reason == nil and "todo" or tostring(reason)
    if P.running then
      local s = P.state_of(P.running.t)
      s.skip = s.skip or reason
      P.skip(reason)
    end
    P.file_todo = P.file_todo or reason
    if P.inline then
      P.used = true
      P.skip(reason)
    end
  end)

-- Runs the file's own code. Returns nil, or the record of its error.
function P.run_chunk(fn)
  local ok, record = xpcall(fn, catch)
  if ok then return nil end
  if record.skip then
    P.file_todo = P.file_todo or record.skip
    return nil
  end
  return record
end

-- Runs one registered body. Returns a table: status, message, file, line, values, trace, log.
function P.run_body(rec)
  local t = P.new_context(rec.name, rec.meta)
  local s = P.state_of(t)
  rec.t = t
  P.running, P.values = rec, nil
  local ok, record = xpcall(rec.fn, catch, t)
  if ok then
    ok, record = xpcall(P.finish_tasks, catch)
  end
  P.running = nil
  local failure = s.failure
  if not failure and not ok and not record.skip then
    failure = record
    failure.values = P.values
  elseif failure and not ok and not record.skip then
    failure.trace = record.trace
    if record.message ~= failure.message then
      failure.message = failure.message .. "\nthen: " .. record.message
    end
  end
  P.values = nil
  if failure then
    return { status = "failed", message = failure.message, file = failure.file,
      line = failure.line, values = failure.values, trace = failure.trace, log = s.log }
  end
  local skip = s.skip or (not ok and record.skip)
  if skip then return { status = "skipped", message = skip, log = s.log } end
  return { status = "passed", log = s.log }
end

-- Runs a fixture's code. Returns the record of its error, or nil and what it returned.
function P.run_fixture(fn)
  local ok, value = xpcall(fn, catch)
  if not ok then return value end
  local finished, record = xpcall(P.finish_tasks, catch)
  if not finished then return record end
  return nil, value
end
