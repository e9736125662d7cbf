-- Suspend to RAM, and waking up from it (lua-api L-245).

local function suspend(vm)
  vm:run_async("echo mem > /sys/power/state; echo awake > /tmp/awake")
end

local function wake(vm)
  wait_until(function() return pcall(vm.wakeup, vm) end, { timeout = "60s", desc = "the guest to suspend" })
end

for _, cpus in ipairs { 1, 4 } do
  test("L-245: a guest with " .. cpus .. " CPUs suspends, is woken, and goes on as it was", { timeout = "200s" }, function(t)
    local vm = provium:vm("s", "minimal", { cpus = cpus }):boot()
    local e = tostring(t:assert_raises(function() vm:wakeup() end))
    t:assert_contains(e, "vm:wakeup: vm s")
    t:assert_contains(e, "has not suspended")

    vm:write_file("/tmp/kept", "kept")
    local f = vm:open_file("/tmp/kept", { read = true })
    local worker, thread = vm:spawn_worker(), vm:spawn_worker { thread = true }
    local in_worker = worker:open_file("/tmp/kept", { read = true })
    local counter = vm:run_async("i=0; while :; do i=$((i+1)); echo $i > /tmp/count; sleep 0.1; done")
    wait_until(function() return pcall(vm.stat, vm, "/tmp/count") end)
    local booted = vm:read_file("/proc/sys/kernel/random/boot_id")
    for round = 1, 2 do
      suspend(vm)
      wake(vm)
      t:assert_eq(vm:state(), "booted")
      wait_until(function() return pcall(vm.stat, vm, "/tmp/awake") end, { desc = "the command to go on" })
      vm:unlink("/tmp/awake")
      t:assert_eq(in_worker:read(2), ({ "ke", "pt" })[round])
      t:assert_eq(worker:syscall(39).ret .. "/" .. thread:syscall(186).ret, worker:pid() .. "/" .. thread:tid())
    end
    t:assert_eq(vm:read_file("/proc/sys/kernel/random/boot_id"), booted)
    t:assert_eq(f:read_all(), "kept")
    local before = tonumber(vm:read_file("/tmp/count"))
    wait_until(function() return (tonumber((vm:read_file("/tmp/count"))) or 0) > before end)
    t:assert_eq(counter:status(), "running")
    t:assert_eq(vm:run("nproc").stdout, cpus .. "\n")
    local log = vm:console():read_log()
    t:assert_contains(log, "PM: suspend entry (deep)")
    t:assert_contains(log, "PM: suspend exit")
    for _, bad in ipairs { "BUG:", "WARNING:", "rcu_sched", "soft lockup", "failed to resume" } do
      t:assert(not log:find(bad, 1, true), bad)
    end
  end)
end

test("L-245: what is asked of a suspended guest is refused at once", { timeout = "100s" }, function(t)
  local vm = provium:vm("s", "minimal"):boot()
  local waiting = co.spawn(function() return pcall(vm.run, vm, "sleep 1000") end)
  local e = tostring(t:assert_raises(function() vm:run("echo mem > /sys/power/state; sleep 1000") end))
  t:assert_contains(e, "suspended to RAM; vm:wakeup wakes it")
  local ok, why = waiting:join("20s")
  t:assert(not ok)
  t:assert_contains(why, "suspended")
  for _, use in ipairs {
    function() vm:stat("/") end, function() vm:clock():get() end, function() vm:spawn_worker() end,
  } do t:assert_contains(tostring(t:assert_raises(use)), "suspended to RAM") end
  t:assert_eq(vm:state(), "booted")
  vm:pause()
  vm:resume()
  vm:wakeup()
  t:assert_eq(vm:run("echo fine").stdout, "fine\n")
end)

test("L-245: the clock of the world goes on meanwhile", { timeout = "100s" }, function(t)
  local vm = provium:vm("s", "minimal"):boot()
  local from = vm:clock():get()
  pcall(vm.run, vm, "echo mem > /sys/power/state; sleep 1000")
  local looks = 0
  wait_until(function()
    looks = looks + 1
    t:assert(not pcall(vm.stat, vm, "/"), "it is asleep")
    return looks == 4
  end, { interval = "10s", timeout = "60s" })
  vm:wakeup()
  local slept = vm:clock():get() - from
  t:assert(slept > 29 and slept < 60, slept)
end)

test("L-245, L-077, L-078: a suspended guest can be reset, and its power button wakes it", { timeout = "200s" }, function(t)
  local vm = provium:vm("s", "minimal"):boot()
  local function down()
    pcall(vm.run, vm, "echo mem > /sys/power/state; sleep 1000")
    t:assert_contains(tostring(t:assert_raises(function() vm:stat("/") end)), "suspended")
  end
  down()
  vm:reset()
  t:assert_eq(vm:run("echo again").stdout, "again\n")
  down()
  t:assert(vm:power_button(), "the guest woke and powered off")
  t:assert_eq(vm:state(), "shutdown")
end)

test("L-245, L-079: a suspended guest is not saved, and the error says what to do", { timeout = "100s" }, function(t)
  local vm = provium:vm("s", "minimal"):boot()
  pcall(vm.run, vm, "echo mem > /sys/power/state; sleep 1000")
  local e = tostring(t:assert_raises(function() vm:snapshot() end))
  t:assert_contains(e, "vm:snapshot: vm s: the guest has suspended to RAM; vm:wakeup wakes it")
  vm:wakeup()
  vm:snapshot()
end)

test("L-245, L-250: handles of before a snapshot, after the guest was suspended and put back", { timeout = "100s" }, function(t)
  local vm = provium:vm("s", "minimal"):boot()
  vm:write_file("/tmp/kept", "kept")
  local f = vm:open_file("/tmp/kept", { read = true })
  local s = vm:snapshot()
  pcall(vm.run, vm, "echo mem > /sys/power/state; sleep 1000")
  t:assert_contains(tostring(t:assert_raises(function() f:read(1) end)), "suspended")
  vm:shutdown()
  vm:restore(s)
  t:assert_eq(f:read_all(), "kept")
end)
