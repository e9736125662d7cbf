-- Operations under way when the VM is killed, reset, hung or powered off: each ends with an
-- error that says so, within its deadline (lua-api L-061..L-063, L-221, L-243).

local vm = provium:vm("b", "minimal", { memory = "128M" })

-- Many different operations that would never end by themselves, as running tasks.
local function pending_operations()
  local worker = vm:spawn_worker()
  local pipe = vm:syscall(22, { bufs = { ("\0"):rep(8) }, ptrs = { 0 } })
  local reader = string.unpack("<i4", pipe.out_bufs[1])
  local process = vm:run_async("sleep 100000")
  local handle = vm:syscall_async(0, { args = { reader, 0, 1 }, bufs = { "\0" }, ptrs = { 1 } })
  local stream = vm:run_async("sleep 100000"):stdout_stream()
  local console = vm:console():read()
  local operations = {
    run = function() vm:run("sleep 100000") end,
    worker_run = function() worker:run("sleep 100000") end,
    worker_syscall = function() worker:syscall(34) end,
    await = function() handle:await() end,
    wait = function() process:wait() end,
    sleep = function() vm:clock():sleep("100000s") end,
    read_until = function() stream:read_until("never", "100000s") end,
    expect = function() vm:console():expect("never on the console", "100000s") end,
    console_stream = function() console:read_until("never on the console", "100000s") end,
    batch = function() vm:batch(function(b) b:run("sleep 100000") end) end,
  }
  local tasks = {}
  for name, operation in pairs(operations) do
    tasks[name] = co.spawn(function() return pcall(operation) end)
  end
  vm:clock():sleep("200ms")
  for name, task in pairs(tasks) do assert(not task:done(), name .. " is not pending") end
  return tasks
end

-- Every task has ended with an error that names the call and what happened.
local function all_raised(t, tasks, what, spared)
  for name, task in pairs(tasks) do
    if not (spared and spared[name]) then
      local ok, why = task:join("20s")
      t:assert(not ok, name .. " succeeded")
      t:assert_contains(why, "broken.test.lua:", name)
      local found = false
      for _, word in ipairs(what) do found = found or why:find(word, 1, true) end
      t:assert(found, name .. ": " .. why)
    end
  end
end

test("killed: every operation ends at once", function(t)
  vm:boot()
  local tasks = pending_operations()
  vm:kill()
  all_raised(t, tasks, { "shut down", "shutdown", "stopped", "killed", "EOF" })
  t:assert_eq(vm:state(), "shutdown")
end)

test("reset: every operation ends, and the VM goes on", function(t)
  vm:boot()
  local tasks = pending_operations()
  vm:reset()
  all_raised(t, tasks, { "reset", "EOF" }, { expect = true, console_stream = true })
  t:assert_eq(vm:run("echo back").stdout, "back\n")
  -- What looks at the console outlives a reset, and ends with the machine.
  vm:kill()
  t:assert(not tasks.expect:join("20s"))
  t:assert(not tasks.console_stream:join("20s"))
end)

test("reset while it resets, paused operations, and operations during the reset", function(t)
  vm:boot()
  local during = {}
  local task = co.spawn(function() vm:reset() end)
  for i = 1, 4 do
    during[i] = co.spawn(function() return pcall(vm.run, vm, "echo " .. i) end)
  end
  task:join("120s")
  for i = 1, 4 do
    local ok, result = during[i]:join("60s")
    if ok then
      t:assert_eq(result.stdout, i .. "\n")
    else
      t:assert_contains(result, "vm b")
      t:assert_contains(result, "reset")
    end
  end
  t:assert_eq(vm:run("echo after").stdout, "after\n")
end)

test("hung: a CPU that never answers is named at the deadline", function(t)
  -- The only CPU spins with interrupts off: nothing in the guest can answer any more.
  vm:shutdown()
  vm:boot { cpus = 1 }
  local begun = os.time()
  local hang = co.spawn(function()
    return pcall(vm.run, vm, "echo 1 > /proc/sys/kernel/sysrq; while :; do :; done", { timeout = "2s" })
  end)
  local ok, result = hang:join("60s")
  t:assert(ok, result)
  t:assert_eq(result.status, "timed_out")
  t:assert_eq(vm:run("echo well").stdout, "well\n")
  t:assert(os.time() - begun < 60)
end)

test("the agent killed: said within the time its link has, and the VM is dead or healed", function(t)
  local pid = vm:syscall(39).ret
  local before = vm:run("echo $PPID").stdout
  t:assert_eq(before, pid .. "\n")
  local ok, why = pcall(vm.run, vm, "kill -9 " .. pid .. "; sleep 1000")
  t:assert(not ok)
  t:assert_contains(why, "vm b")
  t:assert_contains(why, "agent")
  -- The supervisor starts it again; the machine never stopped.
  wait_until(function() return pcall(vm.run, vm, "true") end, { timeout = "20s", desc = "the agent's return" })
  t:assert_eq(vm:state(), "booted")
  t:assert_neq(vm:syscall(39).ret, pid)
end)

test("a system call that ends the agent's process, or crashes it", function(t)
  for _, call in ipairs { { 231, 3 }, { 60, 3 } } do
    local ok, why = pcall(vm.syscall, vm, table.unpack(call))
    t:assert(not ok, "exit returned")
    t:assert_contains(why, "vm:syscall")
    t:assert_contains(why, "agent")
    wait_until(function() return pcall(vm.run, vm, "true") end, { timeout = "20s", desc = "the agent's return" })
  end
  -- A signal to itself.
  local pid = vm:syscall(39).ret
  local ok, why = pcall(vm.syscall, vm, 62, pid, 11)
  if ok then ok, why = pcall(vm.run, vm, "sleep 5") end
  t:assert(not ok)
  t:assert_contains(why, "agent")
  wait_until(function() return pcall(vm.run, vm, "true") end, { timeout = "20s", desc = "the agent's return" })
  t:assert_neq(vm:syscall(39).ret, pid)
end)

test("a worker killed: its calls say so, the VM's own go on", function(t)
  local worker = vm:spawn_worker()
  local waiting = co.spawn(function() return pcall(worker.run, worker, "sleep 1000") end)
  vm:syscall(62, worker:pid(), 9)
  local ok, why = waiting:join("20s")
  t:assert(not ok)
  t:assert_contains(why, "worker")
  t:assert_contains(t:assert_raises(function() worker:syscall(39) end), "worker")
  t:assert_eq(vm:run("echo fine").stdout, "fine\n")
  worker:close()
end)

test("L-243: the guest powers off under every kind of operation", function(t)
  local tasks = pending_operations()
  vm:run_async("sleep 0.2; poweroff -f")
  all_raised(t, tasks, { "power", "shut down", "shutdown", "EOF", "stopped" })
  t:assert_eq(vm:state(), "shutdown")
end)

test("a panic ends every operation, and is their reason", function(t)
  vm:boot()
  local tasks = pending_operations()
  vm:run_async("sleep 0.2; echo c > /proc/sysrq-trigger")
  all_raised(t, tasks, { "panic", "EOF" })
  t:assert_eq(vm:state(), "dead")
end)
