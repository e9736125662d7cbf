-- The `t` of a test body: assertions that stick, skip, log (lua-api L-210..L-215).
local P = ...

local type, tostring, error, pcall = type, tostring, error, pcall
local show = P.show

local Context = {}
Context.__index = Context
Context.__name = "t"
Context.__tostring = function(t) return "t(" .. t.name .. ")" end

-- What a context has recorded, kept out of the author's reach.
local state = setmetatable({}, { __mode = "k" })
P.state_of = function(t) return state[t] end

function P.new_context(name, meta)
  local t = setmetatable({ name = name, meta = meta or {} }, Context)
  state[t] = { log = {} }
  return t
end

-- Remembers two compared values for the failure block of the assertion about to fail.
function P.note_values(left, right)
  P.values = { P.show_quoted(left), P.show_quoted(right) }
end

local function checked_self(t, what)
  local s = state[t]
  if not s then P.raise("t:" .. what .. ": call it with a colon, t:" .. what .. "(...)") end
  return s
end

-- Records a failure that no pcall can undo, then raises it at the author's line.
local function fail(t, what, message)
  local s = checked_self(t, what)
  local where = P.where()
  if not s.failure then
    local file, line = P.frame(1)
    s.failure = { message = where .. message, file = file, line = line, values = P.values }
    P.values = nil
  end
  error(where .. message, 0)
end

local function prefixed(message, text)
  if message == nil then return text end
  return tostring(message) .. ": " .. text
end

local function method(name, signature, doc, fn)
  Context[name] = P.def("t", name, signature, doc, fn)
end

method("assert", "(condition, message?)", "Fails the test unless `condition` is truthy.",
  function(t, condition, message)
    checked_self(t, "assert")
    if condition then return end
    fail(t, "assert", message == nil and "assertion failed" or tostring(message))
  end)

method("assert_eq", "(a, b, message?)", "Fails the test unless `a == b`.",
  function(t, a, b, message)
    checked_self(t, "assert_eq")
    if a == b then return end
    P.note_values(a, b)
    fail(t, "assert_eq", prefixed(message, show(a) .. " ~= " .. show(b)))
  end)

method("assert_neq", "(a, b, message?)", "Fails the test if `a == b`.",
  function(t, a, b, message)
    checked_self(t, "assert_neq")
    if a ~= b then return end
    fail(t, "assert_neq", prefixed(message, show(a) .. " == " .. show(b)))
  end)

method("assert_contains", "(haystack: string, needle: string, message?)",
  "Fails the test unless `needle` is a plain substring of `haystack`.",
  function(t, haystack, needle, message)
    checked_self(t, "assert_contains")
    if type(haystack) ~= "string" or type(needle) ~= "string" then
      P.raise("t:assert_contains: haystack and needle must be strings, got "
        .. P.kind(haystack) .. " and " .. P.kind(needle))
    end
    if haystack:find(needle, 1, true) then return end
    fail(t, "assert_contains",
      prefixed(message, P.show_quoted(needle) .. " not found in " .. P.show_quoted(haystack)))
  end)

method("assert_raises", "(fn, message?): any",
  "Fails the test unless `fn()` raises; returns what it raised.",
  function(t, fn, message)
    local s = checked_self(t, "assert_raises")
    local before = s.failure
    local ok, raised = pcall(fn)
    if ok then fail(t, "assert_raises", prefixed(message, "expected to raise")) end
    if P.is_skip(raised) then error(raised, 0) end
    s.failure, P.values = before, nil
    return raised
  end)

method("fail", "(message?)", "Fails the test.",
  function(t, message)
    fail(t, "fail", message == nil and "explicit failure (t:fail)" or tostring(message))
  end)

method("skip", "(reason?)", "Ends the test as skipped.",
  function(t, reason)
    local s = checked_self(t, "skip")
    reason = reason == nil and "skipped (t:skip)" or tostring(reason)
    s.skip = s.skip or reason
    P.skip(reason)
  end)

method("log", "(value)", "Adds a line to the test's log, shown when the test fails.",
  function(t, value)
    local log = checked_self(t, "log").log
    log[#log + 1] = tostring(value)
  end)
