-- The test framework seen from inside (lua-api section 17).

local order = {}

local function raised(t, fn, ...)
  local args = table.pack(...)
  return tostring(t:assert_raises(function() fn(table.unpack(args, 1, args.n)) end))
end

-- The context of another test, on which failing marks nobody who runs.
local here = "framework.test.lua:"

test("L-209: bodies run in order, after the chunk", function(t)
  order[#order + 1] = t.name
  t:assert_eq(order[1], "L-209: bodies run in order, after the chunk")
  t:assert_eq(order.chunk_done, true)
  t:assert_contains(raised(t, test, "inside", function() end), "inside")
end)

test("L-210: the context", { spec = { "L-210", "L-226" }, anything = "x" }, function(t)
  t:assert_eq(t.name, "L-210: the context")
  t:assert_eq(t.meta.anything, "x")
  t:assert_eq(t.meta.spec[2], "L-226")
end)

test("L-210: without meta it is empty", function(t)
  t:assert_eq(next(t.meta), nil)
end)

test("L-211: assertions raise at the caller's line", function(t)
  local function line() return debug.getinfo(2, "l").currentline end
  local e, at = raised(t, function() t:assert(false) end), line()
  t:assert_contains(e, here .. at .. ": assertion failed")
  t:assert_contains(raised(t, t.assert, t, nil, "why not"), "why not")
  t:assert_contains(raised(t, t.assert_eq, t, 1, 2), "1 ~= 2")
  t:assert_contains(raised(t, t.assert_eq, t, 1, 2, "sum"), "sum: 1 ~= 2")
  t:assert_contains(raised(t, t.assert_eq, t, 1, 1.5), "1 ~= 1.5")
  t:assert_contains(raised(t, t.assert_eq, t, "a", "a\n"), 'a ~= "a\\n"')
  t:assert_contains(raised(t, t.assert_neq, t, "a", "a", "both"), "both: a == a")
  t:assert_eq(1, 1.0)
end)

test("L-212: assert_contains is a plain find on strings", function(t)
  t:assert_contains("a.c", ".")
  t:assert_contains("x", "")
  t:assert_contains("nul\0inside", "\0i")
  t:assert_contains(raised(t, t.assert_contains, t, "abc", "a.c"), "a.c")
  t:assert_contains(raised(t, t.assert_contains, t, "abc", "x", "MSG"), "MSG: ")
  local e = raised(t, t.assert_contains, t, { "abc" }, 5)
  t:assert_contains(e, "table")
  t:assert_contains(e, "integer")
end)

test("L-213: assert_raises returns the error, whatever it is", function(t)
  local value = {}
  t:assert_eq(t:assert_raises(function() error(value) end), value)
  t:assert_eq(t:assert_raises(function() error(nil) end), nil)
  t:assert_contains(raised(t, t.assert_raises, t, function() end), "expected to raise")
  t:assert_contains(raised(t, t.assert_raises, t, function() end, "MSG"), "MSG: expected to raise")
  -- A failure recorded inside is forgotten: this test passes.
  t:assert_raises(function() t:fail("inside") end)
end)

test("L-213, L-214: a skip passes through assert_raises", function(t)
  t:assert_raises(function() t:skip("meant to be skipped: L-214") end)
  error("not reached")
end)

test("L-214: fail and log", function(t)
  t:assert_contains(raised(t, t.fail, t), "explicit failure (t:fail)")
  local at = debug.getinfo(1, "l").currentline + 1
  t:assert_contains(raised(t, function() t:fail("said why") end), here .. at .. ": said why")
  t:log(setmetatable({}, { __tostring = function() return "shown" end }))
  t:log(nil)
  t:assert_contains(raised(t, function() t.log("no colon") end), "colon")
end)

test("L-215: a skip that pcall caught still skips", function(t)
  pcall(function() t:skip("meant to be skipped: L-215") end)
end)

test("L-216, C-050: todo in a running test", function()
  todo("meant to be skipped: L-216")
  error("not reached")
end)

test("L-217: wait_until", function(t)
  local count = 0
  t:assert_eq(wait_until(function() count = count + 1 return count == 3 and "third" end,
    { interval = "1ms" }), "third")
  local e = raised(t, wait_until, function() return false end, { timeout = "50ms", interval = 0.01, desc = "a miracle" })
  t:assert_contains(e, "wait_until: a miracle not met within 0.05s")
  t:assert_contains(raised(t, wait_until, function() error("inside pred") end), "inside pred")
  t:assert_contains(raised(t, wait_until, function() end, { timeot = 1 }), "timeot")
  t:assert_contains(raised(t, wait_until, 5), "wait_until")
end)

test("L-218: the global assert keeps Lua's contract", function(t)
  t:assert_eq(select("#", assert(1, nil, 3)), 3)
  local object = {}
  t:assert_eq(t:assert_raises(function() assert(false, object) end), object)
  t:assert_eq(t:assert_raises(function() assert(nil, "as it is") end), "as it is")
  local e = t:assert_raises(function() assert(1 == 2) end)
  t:assert_eq(e:sub(1, 17), "assertion failed!")
  t:assert_contains(e, "assert(1 == 2)")
  t:assert_contains(e, here)
end)

test("L-222: skipped by meta", { skip = "meant to be skipped: L-222" }, function() error("not reached") end)
test("L-222: skipped by a number", { skip = 1 }, function() error("not reached") end)
test("L-222: not skipped", { skip = false }, function(t) t:assert(true) end)
test("L-222: nor by 0", { skip = 0 }, function(t) t:assert(true) end)

test("L-223: slow tests wait for --include-slow", { slow = true }, function(t) t:assert(true) end)
test("L-224: tags are a list or one word", { tags = "api" }, function(t) t:assert_eq(t.meta.tags, "api") end)
test("L-225: a deadline of its own", { timeout = "90s" }, function(t) t:assert_eq(t.meta.timeout, "90s") end)

test("L-209: what cannot be registered", function(t)
  t:assert_eq(order.duplicate:match("duplicate name `twice` in this file"), "duplicate name `twice` in this file")
  t:assert_contains(order.bad, "argument 1")
  t:assert_contains(order.nobody, "fn")
end)

test("twice", function() end)
order.duplicate = select(2, pcall(test, "twice", function() end))
order.bad = select(2, pcall(test, 5, function() end))
order.nobody = select(2, pcall(test, "no body"))
order.chunk_done = true
