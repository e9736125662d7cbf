-- Boot options and life of a VM (lua-api 5.2, 5.3, 5.7, L-241..L-244).

local vm = provium:vm("a", "minimal", { memory = "96M", kernel_cmdline_append = "staged=1" })

local function raised(t, fn, ...)
  local args = table.pack(...)
  return tostring(t:assert_raises(function() fn(table.unpack(args, 1, args.n)) end))
end

test("L-064, L-065, L-066: keys and values that are refused", function(t)
  local n = 0
  local function declared(opts)
    n = n + 1
    return raised(t, provium.vm, provium, "x" .. n, "minimal", opts)
  end
  t:assert_contains(declared { memroy = "1G" }, "memroy")
  t:assert_contains(declared { memory = 8 << 20 }, "16")
  t:assert_contains(declared { memory = 512 }, "512M")
  for _, cpus in ipairs { 0, -1, 1.5, "2", {} } do t:assert_contains(declared { cpus = cpus }, "cpus") end
  t:assert_contains(declared { kernel_cmdline = 5 }, "kernel_cmdline")
  t:assert_contains(declared { rng_seed = "x" }, "rng_seed")
  t:assert_contains(declared { initial_time = 0 / 0 }, "must be a finite number (got NaN/inf)")
  t:assert_contains(declared { boot_timeout = "soon" }, "soon")
  t:assert_contains(declared { files = { ["relative"] = "/etc/passwd" } }, "relative")
  t:assert_contains(declared { files = { { path = "/x" } } }, "content")
  t:assert_contains(declared { files = { { path = "/x", content = "", mod = 1 } } }, "mod")
  t:assert_contains(declared { files = { 5 } }, "files")
  t:assert_contains(raised(t, vm.boot, vm, { memroy = "1G" }), "memroy")
  t:assert_eq(vm:state(), "created")
end)

test("L-064..L-070, L-241, L-244: all of it at once; boot wins over staged", function(t)
  local host = os.tmpname()
  io.open(host, "w"):write("#!/bin/sh\necho injected"):close()
  os.execute("chmod 751 " .. host)
  vm:boot { memory = "128M", cpus = 2, kernel_cmdline_append = "at_boot=1", rng_seed = -5,
    initial_time = 1000000000.25, boot_timeout = "250s",
    files = {
      ["/opt/deep/tool"] = host,
      { path = "/etc/greeting", content = "hello\0\xff", mode = 384 },
      { path = "/etc/passwd", content = "root:x:0:0::/root:/bin/sh\n" },
      { path = "/usr/share/dflt", content = "" },
    } }
  os.remove(host)
  local memory = tonumber(vm:read_file("/proc/meminfo"):match("MemTotal:%s*(%d+)"))
  t:assert(memory > 90 * 1024 and memory <= 128 * 1024, memory)
  t:assert_eq(vm:run("nproc").stdout, "2\n")
  local line = vm:read_file("/proc/cmdline")
  t:assert_eq(line:match("(%S+)%s*$"), "at_boot=1")
  t:assert(not line:find("staged", 1, true))
  t:assert_contains(line, "console=ttyS0")
  t:assert_eq(vm:run("/opt/deep/tool").stdout, "injected\n")
  t:assert_eq(vm:stat("/opt/deep/tool").perm, 489)
  t:assert_eq(vm:read_file("/etc/greeting"), "hello\0\xff")
  t:assert_eq(vm:stat("/etc/greeting").perm, 384)
  t:assert_eq(vm:stat("/usr/share/dflt").perm, 420)
  t:assert_eq(vm:read_file("/etc/passwd"), "root:x:0:0::/root:/bin/sh\n")
  local now = vm:clock():get()
  t:assert(now >= 1000000000.25 and now < 1000000010, now)
end)

test("L-074: pause stands still, resume goes on", function(t)
  local before = vm:clock():get_ns()
  vm:pause()
  os.execute("sleep 0.3")
  vm:resume()
  local passed = vm:clock():get_ns() - before
  t:assert(passed < 300000000, passed .. " ns of guest time")
end)

test("L-077: reset keeps the options, loses the memory", function(t)
  vm:write_file("/tmp/lost", "x")
  vm:reset()
  t:assert_eq(vm:state(), "booted")
  t:assert_contains(raised(t, vm.stat, vm, "/tmp/lost"), "No such file")
  t:assert_eq(vm:read_file("/etc/greeting"), "hello\0\xff")
  t:assert_eq(vm:run("nproc").stdout, "2\n")
end)

test("L-115: batch", function(t)
  local r = vm:batch(function(b)
    b:mkdir("/tmp/b")
    b:write_file("/tmp/b/f", "text")
    b:rename("/tmp/b/f", "/tmp/b/g")
    b:read_file("/tmp/b/g")
    b:listdir("/tmp/b")
    b:stat("/tmp/b/g")
    b:unlink("/tmp/b")
    b:unlink("/tmp/b/g")
    b:run("exit 3")
    b:syscall(3, 9999)
  end)
  t:assert_eq(#r, 10)
  for _, i in ipairs { 1, 2, 3, 8 } do t:assert(r[i].ok == nil and r[i].err == nil, i) end
  t:assert_eq(r[4].ok .. r[5].ok[1].name .. r[6].ok.size, "textg4")
  t:assert_contains(r[7].err, "Directory not empty")
  t:assert_eq(r[9].ok.exit_code .. r[10].ok.errno, "39")
  t:assert_contains(raised(t, vm.batch, vm, function(b)
    b:write_file("/tmp/not-sent", "x")
    error("stop")
  end), "stop")
  t:assert_contains(raised(t, vm.stat, vm, "/tmp/not-sent"), "No such file")
  t:assert_contains(raised(t, vm.batch, vm, function(b) b:syscall(0, { bufs = { "x" }, ptrs = { 1 } }) end), "integers only")
  t:assert_contains(raised(t, vm.batch, vm, "x"), "function")
  t:assert_eq(#vm:batch(function() end), 0)
end)

test("L-116, L-117, L-118: accessors", function(t)
  t:assert_eq(vm:name() .. vm:profile() .. vm:state(), "aminimalbooted")
  local cid = vm:cid()
  t:assert(cid >= 10)
  local p = vm:run_async("sleep 1000")
  t:assert(vm:is_quiescent(), "a process is no operation")
  local task = co.spawn(function() vm:run("sleep 1") end)
  t:assert(not vm:is_quiescent())
  task:join()
  p:close()
  t:assert(vm:is_quiescent())
end)

test("L-075, L-076: shutdown syncs, close does not ask", function(t)
  vm:run_async("trap 'echo got TERM > /dev/ttyS0' TERM; sleep 1000")
  local cid = vm:cid()
  vm:shutdown()
  t:assert_eq(vm:state(), "shutdown")
  vm:boot()
  t:assert(vm:cid() ~= nil and cid ~= nil)
  t:assert_eq(vm:run("nproc").stdout, "1\n", "options of one boot do not stick")
  t:assert_contains(vm:read_file("/proc/cmdline"), "staged=1")
  vm:close()
  vm:close()
  t:assert_eq(vm:state(), "shutdown")
end)

test("L-253: the minimal guest", function(t)
  local g = provium:vm("minimal_guest", "minimal", { memory = "96M" }):boot()
  for _, dir in ipairs { "/bin", "/sbin", "/usr/bin", "/usr/sbin" } do
    local applet = g:run("find " .. dir .. " -type l | head -n 1").stdout:gsub("%s+$", "")
    t:assert(applet ~= "", "no applet in " .. dir)
    t:assert_contains(g:run("readlink -f " .. applet).stdout, "busybox")
  end
  local mounts = g:read_file("/proc/mounts")
  t:assert(mounts:find("%S+ /tmp tmpfs") and mounts:find("%S+ /run tmpfs"), mounts)
  -- A shell of root at the serial line, and another one when it ends.
  local console = g:console()
  for round = 1, 2 do
    wait_until(function()
      console:write("echo round" .. round .. "=$((20 + " .. round .. ")) uid=$(id -u)\n")
      return pcall(console.expect, console, "round" .. round .. "=2" .. round .. " uid=0", "1s")
    end, { timeout = "20s", desc = "the shell's answer" })
    console:write("exit\n")
  end
  t:assert(g:power_button(), "the power button powers it off")
  t:assert_eq(g:state(), "shutdown")
end)
