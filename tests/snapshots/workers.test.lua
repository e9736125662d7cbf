-- Workers of before a snapshot live on after a restore of it (L-012, L-206, L-250, E-047, E-091).
local root = provium
local vm = root:vm("a", "minimal", {memory = "128M"}):boot()

local function raised(t, fn, ...)
  local args = table.pack(...)
  return tostring(t:assert_raises(function() fn(table.unpack(args, 1, args.n)) end))
end

local function gone(pid)
  wait_until(function() return not pcall(vm.stat, vm, "/proc/" .. pid) end, {timeout = "20s", desc = "the end of " .. pid})
end

-- A worker with something open in it.
local function furnished(opts)
  local w = vm:spawn_worker(opts)
  vm:write_file("/tmp/digits", "0123456789")
  local f = w:open_file("/tmp/digits", {read = true})
  f:read(2)
  w:syscall(80, {bufs = {"/proc\0"}, ptrs = {0}})
  return w, f, w:run_async("cat; echo over")
end

for _, kind in ipairs {"process", "thread"} do
  test("L-250: a worker (" .. kind .. "), its files and processes, restored again and again", function(t)
    local w, f, p = furnished {thread = kind == "thread"}
    local tid, before = w:tid(), p:pid()
    local s = vm:snapshot()
    for round = 1, 3 do
      t:assert_eq(f:read(3), "234")
      t:assert_eq(w:syscall(186).ret, tid)
      t:assert_eq(w:run("pwd").stdout, "/proc\n")
      p:stdin_write("round " .. round .. "\n")
      -- Down or not, the way it went.
      if round == 2 then vm:kill() else vm:shutdown() end
      vm:restore(s)
    end
    t:assert_eq(f:tell(), 2)
    t:assert_eq(f:tail_stream():next("5s"), "23456789", "a stream of a file of before")
    local out = p:stdout_stream()
    p:stdin_write("last\n")
    t:assert_eq(out:next("5s"), "last\n")
    p:close_stdin()
    local r = p:wait("10s")
    t:assert_eq(r.stdout, "last\nover\n")
    t:assert_eq(#w:join(), 1)
    w:close()
    if kind == "process" then gone(w:pid()) end
    gone(before)
    f:close() p:close()
    s:delete()
  end)
end

test("L-063, L-250: a worker of after the snapshot is stale, and says why", function(t)
  local s = vm:snapshot()
  local w = vm:spawn_worker()
  local f, p = w:open_file("/etc/passwd", {read = true}), w:run_async("sleep 1000")
  vm:shutdown()
  vm:restore(s)
  for _, use in ipairs {
    function() w:run("true") end, function() f:read(1) end, function() p:status() end, function() w:join() end,
  } do
    t:assert_contains(raised(t, use), "stale handle: the VM was restored to an earlier snapshot since it was opened")
  end
  f:close() p:close() w:close()
  t:assert_contains(raised(t, w.run, w, "true"), "worker is closed")
  t:assert_eq(vm:spawn_worker():run("echo another").stdout, "another\n")
end)

test("L-063, L-250: what is opened in a worker after the snapshot is stale, the worker is not", function(t)
  local w, f = furnished()
  local s = vm:snapshot()
  local later = w:open_file("/etc/passwd", {read = true})
  vm:shutdown()
  vm:restore(s)
  t:assert_contains(raised(t, later.read, later, 1), "stale")
  later:close()
  t:assert_eq(f:read(1), "2")
end)

test("L-250: a worker killed after the snapshot is back after the restore", function(t)
  local w, f = furnished()
  local s = vm:snapshot()
  vm:syscall(62, w:pid(), 9)
  gone(w:pid())
  t:assert_contains(raised(t, w.run, w, "true"), "the worker has ended: the agent closed the connection")
  t:assert_contains(raised(t, f.read, f, 1), "the worker has ended")
  vm:shutdown()
  vm:restore(s)
  t:assert_eq(w:syscall(39).ret, w:pid())
  t:assert_eq(f:read(1), "2")
end)

test("L-063, L-144: what was open in a worker that is gone closes in silence", function(t)
  local w, f, p = furnished()
  vm:syscall(62, w:pid(), 9)
  gone(w:pid())
  f:close() p:close() w:close()
  t:assert_contains(raised(t, w.run, w, "true"), "worker is closed")
end)

test("L-250: a guest that is reset has none of its workers", function(t)
  local x = provium:vm("x", "minimal", {memory = "128M"}):boot()
  local w = x:spawn_worker()
  local f = w:open_file("/etc/passwd", {read = true})
  local s = x:snapshot()
  x:reset()
  t:assert_contains(raised(t, w.run, w, "true"), "stale handle: the VM was reset since it was opened")
  t:assert_contains(raised(t, f.read, f, 1), "stale handle: the VM was reset since it was opened")
  x:shutdown()
  x:restore(s)
  t:assert_eq(w:run("echo back").stdout, "back\n")
  t:assert_eq(f:read(4), "root")
end)

test("L-206: an operation under way on a worker stands in the way of a snapshot", function(t)
  local w = vm:spawn_worker()
  local task = co.spawn(function() return w:run("sleep 5; echo slept").stdout end)
  t:assert(not vm:is_quiescent(), "quiet")
  t:assert_contains(raised(t, vm.snapshot, vm), "operations(1 under way on vm a)")
  t:assert_eq(task:join("20s"), "slept\n")
  t:assert(vm:is_quiescent(), "not quiet")
  vm:snapshot():delete()
end)

test("L-012, L-063: an operation under way on a worker during a restore ends, the worker does not", function(t)
  local w, f = furnished()
  local lab = root:snapshot()
  for _ = 1, 3 do
    -- Both wait for a signal.
    local task = co.spawn(function() return pcall(w.syscall, w, 34) end)
    local main = co.spawn(function() return pcall(vm.syscall, vm, 34) end)
    root:restore(lab)
    for _, pending in ipairs {task, main} do
      local ok, why = pending:join("20s")
      t:assert(not ok)
      t:assert_contains(why, "the VM was restored to an earlier snapshot during the call")
    end
    t:assert_eq(w:syscall(39).ret, w:pid())
    t:assert_eq(f:read(1), "2")
  end
end)

test("L-250, E-091: whose handle nobody has ends by itself, and its processes with it", function(t)
  local dropped, kept = vm:spawn_worker(), vm:spawn_worker {thread = true}
  local p = dropped:run_async("sleep 100000")
  local worker, process = "/proc/" .. dropped:pid(), "/proc/" .. p:pid()
  local s = vm:snapshot()
  p:close() dropped:close()
  p, dropped = nil, nil
  collectgarbage() collectgarbage()
  vm:shutdown()
  vm:restore(s)
  t:assert(pcall(vm.stat, vm, worker), "it is back")
  vm:run("sleep 25")
  t:assert(pcall(vm.stat, vm, worker), "it waits")
  vm:run("sleep 10")
  t:assert(not pcall(vm.stat, vm, worker), "it has waited long enough")
  t:assert(not pcall(vm.stat, vm, process), "and so has its process")
  t:assert_eq(kept:run("sleep 100; echo kept").stdout, "kept\n")
end)

test("L-082, E-047: a clone has no workers", function(t)
  local w, f = furnished()
  local thread = vm:spawn_worker {thread = true}
  local twin = vm:clone("twin")
  wait_until(function()
    local there = pcall(twin.stat, twin, "/proc/" .. w:pid()) or pcall(twin.stat, twin, "/proc/" .. w:pid() .. "/task/" .. thread:tid())
    return not there
  end, {timeout = "20s", desc = "the clone's workers to end"})
  t:assert_eq(twin:run("ls /proc/" .. twin:syscall(39).ret .. "/task | wc -l").stdout, "2\n", "threads of its agent")
  t:assert_eq(w:syscall(39).ret, w:pid(), "the original's live on")
  t:assert_eq(thread:run("echo here").stdout, "here\n")
  t:assert_eq(f:read(1), "2")
end)

-- What is open in the agent, in its workers, and of processes.
local function holdings()
  local agent = vm:syscall(39).ret
  return vm:run("ls /proc/" .. agent .. "/fd | wc -l; ls /proc/" .. agent .. "/task | wc -l; ps | grep -c -e [s]leep -e agent").stdout
end
local held, twice

test("L-250: what was closed after the snapshot is open again", function(t)
  held = holdings()
  local f, p, w = vm:open_file("/tmp/digits", {read = true}), vm:run_async("sleep 100000"), vm:spawn_worker()
  local s = vm:snapshot()
  f:close() p:close() w:close()
  vm:kill()
  vm:restore(s)
  t:assert_eq(f:read(4), "0123")
  t:assert_eq(p:status(), "running")
  t:assert_eq(w:syscall(39).ret, w:pid())
  twice = holdings()
end)

test("L-228, L-250: and was closed with the test that opened it", function(t)
  t:assert_neq(twice, held)
  wait_until(function() return holdings() == held end, {timeout = "10s", desc = "the end of what the test before had open"})
end)
