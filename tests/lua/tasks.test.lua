-- Tasks: several waits side by side (lua-api L-009, L-040).

local vm = provium:vm("a", "minimal"):boot()

test("L-009: a task runs until it first waits", function(t)
  local steps = {}
  local task = co.spawn(function(x)
    steps[#steps + 1] = "task " .. x
    vm:run("sleep 1")
    steps[#steps + 1] = "task on"
    return "r1", "r2"
  end, "begins")
  steps[#steps + 1] = "body"
  t:assert(not task:done())
  local a, b = task:join()
  t:assert_eq(a .. b, "r1r2")
  t:assert_eq(table.concat(steps, ", "), "task begins, body, task on")
  t:assert(task:done())
end)

test("L-009: waits of tasks and of the body overlap", function(t)
  local clock = vm:clock()
  local before = clock:get_ns()
  local tasks = {}
  for i = 1, 5 do
    tasks[i] = co.spawn(function() vm:run("sleep 2") end)
  end
  vm:run("sleep 2")
  for _, task in ipairs(tasks) do task:join() end
  local took = (clock:get_ns() - before) / 1e9
  t:assert(took < 9, "six sleeps of 2 s took " .. took .. " s")
end)

test("L-009: an error is raised by join", function(t)
  local task = co.spawn(function() error("inside") end)
  t:assert_contains(t:assert_raises(function() task:join() end), "inside")
end)

test("L-009: join may time out, the task goes on", function(t)
  local task = co.spawn(function() return vm:run("sleep 3; echo late").stdout end)
  t:assert_contains(t:assert_raises(function() task:join("10ms") end), "task:join: timed out")
  t:assert_eq(task:join(), "late\n")
end)

test("L-009: wrap starts a task; pcall may hold a wait", function(t)
  local got
  local start = co.wrap(function(x)
    local ok = pcall(function() vm:run("sleep 1") end)
    got = x .. tostring(ok)
  end)
  start("x")
  t:assert_eq(got, nil)
  wait_until(function() return got end, { timeout = "20s" })
  t:assert_eq(got, "xtrue")
end)

test("L-040: a barrier of the body and a task", function(t)
  local passed
  co.spawn(function() passed = provium:barrier("here", 2) end)
  t:assert_eq(passed, nil)
  t:assert_eq(provium:barrier("here", 2), true)
  wait_until(function() return passed end)
  t:assert_contains(t:assert_raises(function() provium:barrier("alone", 2, "20ms") end), "alone")
end)
