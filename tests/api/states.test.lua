-- The state table of a VM: what each state allows, and how the rest is refused (lua-api 5.1).

local vm = provium:vm("m", "minimal", { memory = "64M" })

local function raised(t, fn)
  return tostring(t:assert_raises(fn))
end

-- Guest operations, which only a booted VM takes (L-056).
local GUEST = {
  { "vm:run", function() vm:run("true") end },
  { "vm:run_async", function() vm:run_async("true") end },
  { "vm:read_file", function() vm:read_file("/x") end },
  { "vm:write_file", function() vm:write_file("/x", "") end },
  { "vm:stat", function() vm:stat("/") end },
  { "vm:listdir", function() vm:listdir("/") end },
  { "vm:mkdir", function() vm:mkdir("/x") end },
  { "vm:unlink", function() vm:unlink("/x") end },
  { "vm:rename", function() vm:rename("/x", "/y") end },
  { "vm:open_file", function() vm:open_file("/x", { read = true }) end },
  { "vm:tail_file", function() vm:tail_file("/x") end },
  { "vm:fd_stream", function() vm:fd_stream(0) end },
  { "vm:syscall", function() vm:syscall(39) end },
  { "vm:syscall_async", function() vm:syscall_async(39) end },
  { "vm:ioctl", function() vm:ioctl(0, 0) end },
  { "vm:read_mem", function() vm:read_mem(0, 1) end },
  { "vm:write_mem", function() vm:write_mem(0, "x") end },
  { "vm:spawn_worker", function() vm:spawn_worker() end },
  { "clock:get", function() vm:clock():get() end },
  { "clock:set", function() vm:clock():set(1) end },
  { "clock:advance", function() vm:clock():advance(1) end },
  { "clock:sleep", function() vm:clock():sleep(1) end },
  { "vm:batch", function() vm:batch(function(b) b:stat("/") end) end },
  { "vm:mount_vfs", function() vm:mount_vfs() end },
  -- The classic words come down to the same operations (C-006).
  { "vm m", function() vm:exec("true") end },
  { "vm m", function() vm:dmesg() end },
  { "vm m", function() vm:background("true") end },
  { "vm m", function() vm:syscall_buf(39, 0, "x") end },
  { "vm m", function() vm:spawn() end },
}

-- Each call is refused with its name, the VM, the state, and the way out.
local function refused(t, state, calls)
  t:assert_eq(vm:state(), state)
  for _, case in ipairs(calls) do
    local e = raised(t, case[2])
    t:assert_contains(e, "states.test.lua:")
    t:assert_contains(e, case[1])
    t:assert_contains(e, "vm m")
    t:assert_contains(e, state)
    t:assert_contains(e, state == "dead" and "declare another VM" or "call vm:")
    t:assert_eq(vm:state(), state, case[1] .. " changed the state")
  end
end

local function refused_guest_operations(t, state) refused(t, state, GUEST) end

-- What always works (L-058, L-060).
local function accessors(t)
  t:assert_eq(vm:name() .. vm:profile(), "mminimal")
  t:assert(vm:is_quiescent())
  t:assert_eq(vm:open_file_count() + vm:open_stream_count(), 0)
  t:assert_eq(type(vm:console():read_log()), "string")
  vm:console():close()
end

test("L-047..L-060: created", function(t)
  refused_guest_operations(t, "created")
  refused(t, "created", {
    { "vm:pause", function() vm:pause() end },
    { "vm:resume", function() vm:resume() end },
    { "vm:reset", function() vm:reset() end },
    { "vm:power_button", function() vm:power_button() end },
    { "console:write", function() vm:console():write("x") end },
  })
  accessors(t)
  t:assert_eq(vm:cid(), nil)
  t:assert_eq(vm:console():read_log(), "")
  t:assert_contains(raised(t, function() vm:console():expect("x", "50ms") end), "timed out waiting for")
end)

test("L-050, L-051: a VM that never booted can be shut down and closed", function(t)
  local never = provium:vm("never", "minimal")
  never:shutdown()
  t:assert_eq(never:state(), "shutdown")
  local other = provium:vm("other", "minimal")
  other:kill()
  other:close()
  t:assert_eq(other:state(), "shutdown")
end)

test("L-047..L-060: booted", function(t)
  t:assert_eq(vm:boot(), vm)
  refused(t, "booted", {
    { "vm:boot", function() vm:boot() end },
    { "vm:resume", function() vm:resume() end },
  })
  for _, case in ipairs {
    function() vm:run("true") end, function() vm:stat("/") end, function() vm:clock():get() end,
    function() vm:batch(function(b) b:stat("/") end) end, function() vm:dmesg() end,
  } do case() end
  accessors(t)
  t:assert(vm:cid() >= 10)
end)

test("L-047..L-060: paused", function(t)
  local file = vm:open_file("/tmp/open", { write = true, create = true })
  local process = vm:run_async("sleep 1000")
  local stream = process:stdout_stream()
  vm:pause()
  t:assert_eq(vm:state(), "paused")
  -- Handles answer in the same way as the VM's own calls.
  for _, call in ipairs {
    function() file:write("x") end, function() file:tell() end,
    function() process:wait("1s") end, function() process:stdin_write("x") end,
  } do
    local e = raised(t, call)
    t:assert_contains(e, "paused")
    t:assert_contains(e, "vm:resume")
  end
  refused_guest_operations(t, "paused")
  refused(t, "paused", {
    { "vm:boot", function() vm:boot() end },
    { "vm:pause", function() vm:pause() end },
    { "vm:reset", function() vm:reset() end },
    { "vm:power_button", function() vm:power_button() end },
  })
  t:assert_eq(stream:next("50ms"), nil)
  t:assert(not stream:eof())
  t:assert(#vm:phys_read(0, 16) == 16, "memory can be looked at meanwhile (L-238)")
  -- The guest reads later what is typed now (L-057).
  vm:console():write("echo typed-$((20 + 3))\n")
  vm:resume()
  vm:console():expect("typed-23", "20s")
  t:assert_eq(file:write("after"), 5)
  file:close()
  process:kill("kill")
  t:assert_eq(process:wait("10s").signal, 9)
  stream:close()
end)

test("L-050, L-058: shutdown from paused; the console stays readable", function(t)
  local live = vm:console():read()
  vm:pause()
  vm:shutdown()
  refused_guest_operations(t, "shutdown")
  refused(t, "shutdown", {
    { "vm:pause", function() vm:pause() end },
    { "vm:resume", function() vm:resume() end },
    { "vm:reset", function() vm:reset() end },
    { "vm:power_button", function() vm:power_button() end },
    { "console:write", function() vm:console():write("x") end },
  })
  for _ = 1, 3 do vm:shutdown() vm:close() vm:kill() end
  t:assert_eq(vm:state(), "shutdown")
  t:assert_contains(vm:console():read_log(), "Linux version")
  t:assert_eq(vm:console():expect("Linux version", "1s"), "Linux version")
  while live:next("100ms") do end
  t:assert(live:eof(), "a console stream ends with the machine")
  live:close()
  accessors(t)
end)

test("L-047, L-061, L-063: boot again cold, then a panic: dead", function(t)
  vm:boot()
  t:assert_raises(function() vm:stat("/tmp/open") end)
  local file = vm:open_file("/tmp/x", { write = true, create = true })
  local process = vm:run_async("sleep 1000")
  local stream = process:stdout_stream()
  local pending = co.spawn(function() return pcall(vm.run, vm, "sleep 1000") end)
  local e = raised(t, function() vm:run("echo c > /proc/sysrq-trigger; sleep 1000") end)
  t:assert_contains(e, "vm:run")
  t:assert_contains(e, "vm m")
  t:assert_contains(e, "Kernel panic - not syncing: sysrq triggered crash")
  local ok, why = pending:join("30s")
  t:assert(not ok)
  t:assert_contains(why, "panic")
  refused_guest_operations(t, "dead")
  refused(t, "dead", {
    { "vm:boot", function() vm:boot() end },
    { "vm:pause", function() vm:pause() end },
    { "vm:resume", function() vm:resume() end },
    { "vm:reset", function() vm:reset() end },
    { "vm:power_button", function() vm:power_button() end },
    { "console:write", function() vm:console():write("x") end },
  })
  t:assert_contains(vm:console():read_log(), "Kernel panic")
  -- Handles of before say why they are of no use; closing them is silent, streams end.
  for _, use in ipairs {
    function() file:write("x") end, function() process:status() end, function() process:wait("1s") end,
  } do t:assert_contains(raised(t, use), "vm m") end
  while stream:next("100ms") do end
  t:assert(stream:eof())
  file:close()
  process:close()
  stream:close()
  vm:shutdown()
  t:assert_eq(vm:state(), "shutdown")
  accessors(t)
end)

test("L-053, L-062: the power button, and a reboot by the guest itself", function(t)
  local boots = select(2, vm:console():read_log():gsub("Linux version", ""))
  vm:boot()
  local file = vm:open_file("/tmp/x", { write = true, create = true })
  pcall(vm.run, vm, "reboot -f; sleep 1000")
  wait_until(function() return pcall(vm.run, vm, "true") end, { timeout = "60s", desc = "the agent's return" })
  t:assert_eq(vm:state(), "booted")
  t:assert_contains(raised(t, function() file:write("x") end), "stale")
  local e = raised(t, function() vm:stat("/tmp/x") end)
  t:assert_contains(e, "No such file or directory")
  local log = vm:console():read_log()
  t:assert(select(2, log:gsub("Linux version", "")) >= 2, boots)
  t:assert_eq(vm:power_button(), true)
  t:assert_eq(vm:state(), "shutdown")
end)
