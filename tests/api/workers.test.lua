-- Workers, and many operations at once (lua-api section 8, L-110, L-140, L-228).

local vm = provium:vm("a", "minimal"):boot()

local function raised(t, fn, ...)
  local args = table.pack(...)
  return tostring(t:assert_raises(function() fn(table.unpack(args, 1, args.n)) end))
end

-- What the agent holds: its descriptors, threads and children.
local function holdings()
  local pid = vm:syscall(39).ret
  local fds = #vm:listdir("/proc/" .. pid .. "/fd")
  local status = vm:read_file("/proc/" .. pid .. "/status")
  local rss = tonumber(status:match("VmRSS:%s*(%d+)"))
  return { fds = fds, threads = tonumber(status:match("Threads:%s*(%d+)")), rss = rss }
end

local function host_holdings()
  local fds = 0
  for _ in io.popen("ls /proc/" .. io.open("/proc/self/stat"):read("n") .. "/fd"):lines() do fds = fds + 1 end
  local status = io.open("/proc/self/status"):read("a")
  local rss = tonumber(status:match("RssAnon:%s*(%d+)"))
  return { fds = fds, threads = tonumber(status:match("Threads:%s*(%d+)")), rss = rss }
end

test("L-137: a forked worker has its own everything", function(t)
  local f = vm:open_file("/etc/passwd", { read = true })
  local w = vm:spawn_worker()
  t:assert_eq(w:syscall(39).ret, w:pid())
  t:assert_neq(w:pid(), vm:syscall(39).ret)
  t:assert_eq(w:syscall(8, f:fd(), 0, 1).errno, 0, "a copy of the descriptors at the fork")
  t:assert_eq(vm:syscall(33, f:fd(), 700).ret, 700)
  t:assert_eq(w:syscall(8, 700, 0, 1).errno, 9, "but not of later ones")
  w:syscall(80, { bufs = { "/proc\0" }, ptrs = { 0 } })
  t:assert_eq(w:run("pwd").stdout, "/proc\n")
  t:assert_neq(vm:run("pwd").stdout, "/proc\n")
  w:syscall(105, 1000)
  t:assert_eq(w:run("id -u").stdout, "1000\n")
  t:assert_contains(raised(t, w.write_file, w, "/etc/forbidden", "x"), "Permission denied")
  t:assert_eq(vm:run("id -u").stdout, "0\n")
end)

test("L-138: a thread worker shares all but credentials", function(t)
  local w = vm:spawn_worker { thread = true }
  t:assert_eq(w:pid(), vm:syscall(39).ret)
  t:assert_neq(w:tid(), vm:syscall(186).ret)
  local f = vm:open_file("/etc/passwd", { read = true })
  t:assert_eq(w:syscall(8, f:fd(), 0, 1).errno, 0)
  local at = w:syscall(9, 0, 4096, 3, 0x22, -1, 0).ret
  w:write_mem(at, "shared")
  t:assert_eq(vm:read_mem(at, 6), "shared")
  w:syscall(105, 1000)
  t:assert_eq(w:run("id -u").stdout .. vm:run("id -u").stdout, "1000\n0\n")
  w:close()
  t:assert_eq(vm:read_mem(at, 6), "shared")
end)

test("L-139: every guest operation works on a worker; the others do not exist", function(t)
  local w = vm:spawn_worker()
  w:write_file("/tmp/w", "by the worker")
  t:assert_eq(w:read_file("/tmp/w"), "by the worker")
  t:assert_eq(w:stat("/tmp/w").size, 13)
  w:mkdir("/tmp/wd")
  t:assert_eq(#w:listdir("/tmp/wd"), 0)
  w:rename("/tmp/w", "/tmp/wd/x")
  w:unlink("/tmp/wd/x")
  local f = w:open_file("/tmp/wf", { write = true, create = true })
  f:write("abc")
  t:assert_eq(w:syscall(8, f:fd(), 0, 1).ret, 3)
  local tail = w:tail_file("/tmp/wf", { start = "beginning" })
  t:assert_eq(tail:next(), "abc")
  t:assert_eq(w:batch(function(b) b:stat("/tmp/wf") end)[1].ok.size, 3)
  t:assert_eq(w:run_async("exit 4"):wait("10s").exit_code, 4)
  t:assert_eq(w:exec("echo classic").stdout.trim(), "classic")
  for _, name in ipairs { "reset", "pause", "resume", "snapshot", "spawn_worker", "console", "clock", "power_button" } do
    t:assert_eq(w[name], nil, name)
  end
end)

test("L-110, L-140: a worker that blocks holds up nobody", function(t)
  local pipe = vm:syscall(22, { bufs = { ("\0"):rep(8) }, ptrs = { 0 } })
  local reader, writer = string.unpack("<i4i4", pipe.out_bufs[1])
  local blocked, other = vm:spawn_worker(), vm:spawn_worker { thread = true }
  local task = co.spawn(function()
    return blocked:syscall(0, { args = { reader, 0, 1 }, bufs = { "\0" }, ptrs = { 1 } }).out_bufs[1]
  end)
  t:assert_eq(other:run("echo free").stdout .. vm:run("echo free").stdout, "free\nfree\n")
  t:assert(not task:done())
  vm:syscall(1, { args = { writer, 0, 1 }, bufs = { "!" }, ptrs = { 1 } })
  t:assert_eq(task:join("20s"), "!")
end)

test("L-141, L-142, L-143: kill, join, handle", function(t)
  local w = vm:spawn_worker()
  local a, b, c = w:run_async("exit 3"), w:run_async("sleep 1000"), w:run_async("sleep 1000")
  a:wait("10s")
  w:kill("usr1")
  local all = w:join()
  t:assert_eq(#all, 3)
  t:assert_eq(all[1].status .. all[1].exit_code, "exited3")
  t:assert_eq(all[2].status .. all[2].signal, "signalled10")
  t:assert_eq(all[1].handle .. all[2].handle .. all[3].handle, a:handle() .. b:handle() .. c:handle())
  t:assert_contains(raised(t, w.kill, w, {}), "table")
  t:assert_contains(raised(t, w.kill, w, "loud"), "unknown signal name `loud`")
  t:assert_eq(math.type(w:handle()), "integer")
  t:assert_neq(w:handle(), vm:spawn_worker():handle())
end)

test("L-144: close ends a worker and its processes", function(t)
  local w = vm:spawn_worker()
  local p = w:run_async("trap '' TERM; while :; do sleep 1; done")
  local ppid, wpid = p:pid(), w:pid()
  w:close()
  w:close()
  t:assert_contains(raised(t, w.run, w, "true"), "worker")
  t:assert_contains(raised(t, p.wait, p, "1s"), "vm a")
  for _, pid in ipairs { ppid, wpid } do
    wait_until(function() return not pcall(vm.stat, vm, "/proc/" .. pid) end, { desc = "the end of " .. pid })
  end
end)

test("twenty workers at once", { timeout = "200s" }, function(t)
  local before = holdings()
  local tasks, workers = {}, {}
  for i = 1, 20 do workers[i] = vm:spawn_worker { thread = i % 4 == 0 } end
  for i, w in ipairs(workers) do
    tasks[i] = co.spawn(function()
      w:write_file("/tmp/of" .. i, tostring(w:tid()))
      return w:run("sleep 1; cat /tmp/of" .. i).stdout
    end)
  end
  for i, task in ipairs(tasks) do t:assert_eq(task:join("100s"), tostring(workers[i]:tid())) end
  for _, w in ipairs(workers) do w:close() end
  wait_until(function()
    local now = holdings()
    return now.fds <= before.fds and now.threads <= before.threads
  end, { timeout = "20s", desc = "the agent to let go of the workers" })
end)

test("64 operations at once", { timeout = "200s" }, function(t)
  local before, host = holdings(), host_holdings()
  local clock = vm:clock()
  local started = clock:get_ns()
  local tasks = {}
  for i = 1, 64 do
    tasks[i] = co.spawn(function()
      if i % 4 == 0 then return vm:read_file("/proc/version"):sub(1, 5) .. i end
      if i % 4 == 1 then return vm:syscall_async(35, { bufs = { string.pack("<i8i8", 1, 0) }, ptrs = { 0 } }):await().ret .. "/" .. i end
      return vm:run("sleep 1; echo " .. i).stdout
    end)
  end
  for i = 1, 64 do
    local wanted = i % 4 == 0 and "Linux" .. i or i % 4 == 1 and "0/" .. i or i .. "\n"
    t:assert_eq(tasks[i]:join("150s"), wanted)
  end
  local took = (clock:get_ns() - started) / 1e9
  t:assert(took < 30, "one after the other: " .. took)
  wait_until(function()
    local now, here = holdings(), host_holdings()
    return now.fds <= before.fds and here.fds <= host.fds and here.threads <= host.threads
  end, { timeout = "20s", desc = "everything to be let go of" })
end)

test("10,000 operations in a row leave nothing behind", { timeout = "400s" }, function(t)
  local made = 0
  local function round(n)
    for i = 1, n do
      vm:syscall(39)
      local f = vm:open_file("/tmp/row", { write = true, create = true })
      f:write(tostring(i))
      f:close()
      vm:stat("/tmp/row")
      vm:listdir("/sys")
      vm:syscall(63, { bufs = { ("\0"):rep(390) }, ptrs = { 0 } })
      vm:batch(function(b) b:stat("/tmp") b:read_file("/tmp/row") end)
      vm:syscall_async(39):await("5s")
    end
    vm:run("true")
    local p = vm:run_async("true")
    p:stdout_stream():drain("1s")
    p:wait("10s")
    p:close()
    made = made + n * 10 + 5
  end
  round(100)
  local before, host = holdings(), host_holdings()
  for _ = 1, 10 do round(100) end
  local after, now = holdings(), host_holdings()
  t:assert(made > 10000)
  t:assert(after.fds <= before.fds, after.fds .. " descriptors, were " .. before.fds)
  t:assert(after.threads <= before.threads, after.threads .. " threads, were " .. before.threads)
  t:assert(after.rss <= before.rss + 1024, after.rss .. " KiB, were " .. before.rss)
  t:assert(now.fds <= host.fds + 1 and now.threads <= host.threads, now.fds .. " " .. now.threads)
  -- The guest's memory is the harness's own, and the cache of what the CPU has decoded grows with what runs in it.
  t:assert(now.rss <= host.rss + 64 * 1024, now.rss .. " KiB, were " .. host.rss)
  t:assert_eq(vm:open_file_count(), 0)
end)
