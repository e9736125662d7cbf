-- The classic dialect in full (classic-api sections 1 to 7).

local vm = provium.create("minimal")
local v2 = provium:vm("v2", "minimal", { memory = "64M" })

local function raised(t, fn, ...)
  local args = table.pack(...)
  return tostring(t:assert_raises(function() fn(table.unpack(args, 1, args.n)) end))
end

test("C-006, C-014: state rules, and boot returns the VM", function(t)
  local e = raised(t, vm.exec, vm, "true")
  for _, part in ipairs { "created", vm:name(), "vm:boot" } do t:assert_contains(e, part) end
  local host = os.tmpname()
  io.open(host, "w"):write("from the host"):close()
  t:assert_eq(vm:boot { memory = "128M", cpus = 1, files = { ["/etc/injected"] = host } }, vm)
  os.remove(host)
  t:assert_eq(vm:read_file("/etc/injected"), "from the host")
  t:assert_contains(raised(t, vm.boot, vm), "booted")
  v2:boot()
end)

test("C-007, C-010: create, by dot or colon, with generated names", function(t)
  local a, b = provium.create("minimal"), provium:create("minimal")
  t:assert(a:name():match("^__vm_%d+$") and b:name():match("^__vm_%d+$"))
  t:assert_neq(a:name(), b:name())
  t:assert_eq(a:state(), "created")
  t:assert_contains(raised(t, provium.create, "minimol"), "minimal")
  t:assert_contains(raised(t, provium.create), "argument")
end)

test("C-001, C-002, C-003, C-005: what the dialect changes, and what it does not", function(t)
  t:assert_eq(math.type(vm:syscall(39)), "integer")
  t:assert_eq(type(v2:syscall(39)), "table")
  t:assert_eq(vm:syscall(3, 9999), -9)
  local ret, uts = vm:syscall(63, { bufs = { ("\0"):rep(390) }, ptrs = { 0 } })
  t:assert_eq(ret .. uts:match("^%w+"), "0Linux")
  for _, guest in ipairs { vm, v2 } do
    t:assert_eq(guest:syscall_buf(257, 1, "/none\0", -100, 0, 0, 0), -2)
    t:assert_eq(select("#", guest:syscall_bufs(63, { [0] = ("\0"):rep(390) }, 0)), 2)
    t:assert_eq(guest:exec("echo x").stdout.value, "x\n")
  end
  local fd = vm:syscall_buf(257, 1, "/proc/version\0", -100, 0, 0, 0)
  local result, out = vm:ioctl(fd, 0x5401, ("\0"):rep(60))
  t:assert_eq(result, -25)
  t:assert_eq(#out, 60)
  t:assert_eq(type(v2:ioctl(0, 0)), "table")
end)

test("C-012: ranges of pack", function(t)
  for _, width in ipairs { 8, 16, 32 } do
    for _, sign in ipairs { "u", "i" } do
      local token = sign .. width
      local low, high = -(1 << (width - 1)), (1 << width) - 1
      t:assert_eq(#provium.pack(token, low), width // 8)
      t:assert_eq(provium.pack(token, high), ("\xff"):rep(width // 8))
      for _, value in ipairs { low - 1, high + 1 } do
        local e = raised(t, provium.pack, token, value)
        t:assert_contains(e, token)
        t:assert_contains(e, tostring(value))
      end
    end
  end
  t:assert_eq(provium.pack("u64", math.mininteger), ("\0"):rep(7) .. "\x80")
  t:assert_eq(provium.pack("u16", 3.0), "\3\0")
  t:assert_contains(raised(t, provium.pack, "u8 u16", 1, 1.5), "1.5")
  t:assert_contains(raised(t, provium.pack, "u8", "x"), "string")
  t:assert_contains(raised(t, provium.pack, "u8", 1, 2), "2")
end)

test("C-016: kill is at once, again harmless", function(t)
  local b = provium.create("minimal")
  b:boot { memory = "64M" }
  b:kill()
  b:kill()
  t:assert_eq(b:state(), "shutdown")
end)

test("C-017, C-018: exec and its texts", function(t)
  local r = vm:exec("printf ' a.b '; echo bad >&2; exit 3")
  t:assert_eq(tostring(r.ok) .. r.exit_code .. r.stderr, "false3bad\n")
  t:assert(r.stdout.contains(".") and r.stdout:contains("a.b") and not r.stdout.contains("axb"))
  t:assert(r.stdout.starts_with(" a") and not r.stdout:starts_with("a"))
  t:assert_eq(r.stdout.trim(), "a.b")
  t:assert_eq("<" .. r.stdout .. ">", "< a.b >")
  t:assert_eq(tostring(r.stdout) .. #r.stdout, " a.b 5")
  t:assert(r.stdout == vm:exec("printf ' a.b '").stdout)
  t:assert_eq(vm:exec("kill -15 $$").exit_code, 143)
  t:assert_contains(raised(t, vm.exec, vm), "argument 1")
  t:assert_contains(raised(t, vm.exec, vm, 5), "integer")
end)

test("C-019: json", function(t)
  t:assert_eq(vm:json([[echo '{"a":[1,{"b":null}]}']]).a[1], 1)
  local e = raised(t, vm.json, vm, "echo problem >&2; exit 4")
  for _, part in ipairs { "exit 4", "4", "problem" } do t:assert_contains(e, part) end
  e = raised(t, vm.json, vm, "echo '{\"a\":oops}'")
  for _, part in ipairs { "oops", "column", "echo" } do t:assert_contains(e, part) end
end)

test("C-020: files", function(t)
  local data = ("\0\xff classic "):rep(200000)
  vm:write_file("/tmp/c", data)
  t:assert(vm:read_file("/tmp/c") == data)
  t:assert_contains(raised(t, vm.read_file, vm, "/none"), "No such file or directory")
end)

test("C-021: dmesg", function(t)
  local log = vm:dmesg()
  t:assert(log:match("%[%s*%d+%.%d%d%d%d%d%d%] Linux version"), log:sub(1, 200))
  for line in vm:dmesg("^.*Linux v[a-z]*"):gmatch("[^\n]+") do t:assert_contains(line, "Linux v") end
  t:assert_eq(vm:dmesg("no such line"), "")
  t:assert_contains(raised(t, vm.dmesg, vm, "\\("), "vm:dmesg")
end)

test("C-022: mount_vfs, again and again", function(t)
  for _ = 1, 2 do
    vm:mount_vfs()
    v2:mount_vfs()
  end
  local mounts = vm:read_file("/proc/mounts")
  for _, place in ipairs { " /proc proc", " /sys sysfs", " /sys/kernel/security securityfs", " /dev devtmpfs" } do
    t:assert_contains(mounts, place)
  end
  t:assert_eq(select(2, mounts:gsub(" /sys sysfs", "")), 1, "mounted once")
end)

test("C-023: wait_until", function(t)
  local n = 0
  t:assert_eq(vm:wait_until(function() n = n + 1 return n > 2 and n end, { interval = "10ms" }), 3)
  local e = raised(t, vm.wait_until, vm, function() return nil end, { timeout = 0.2, interval = "50ms", desc = "the impossible" })
  for _, part in ipairs { "the impossible", "0.2s", vm:name() } do t:assert_contains(e, part) end
  t:assert_contains(raised(t, vm.wait_until, vm, function() error("from fn") end), "from fn")
  t:assert_eq(vm:wait_until(function() return "at once" end, { timeout = 0.001 }), "at once")
end)

test("C-024, C-025, C-026: buffers by argument index", function(t)
  t:assert_contains(raised(t, vm.syscall, vm, 39, 1, 2, 3, 4, 5, 6, 7), "6")
  -- A shorter argument list is extended with zeros.
  t:assert_eq(vm:syscall_buf(83, 0, "/tmp/made\0"), 0)
  t:assert_eq(vm:stat("/tmp/made").entry_type, "directory")
  t:assert_eq(vm:syscall_buf(83, 0, "/tmp/made\0", 0, 511), -17)
  vm:syscall_buf(88, 0, "x\0", 0, 0)
  local ret, target = vm:syscall_bufs(89, { [1] = ("\0"):rep(16), [0] = "/proc/self/exe\0" }, 0, 0, 16)
  t:assert(ret > 0)
  t:assert_eq(target, "/proc/self/exe\0", "buffers come in the order of their indices")
  for _, bad in ipairs { 6, -1, "x" } do
    t:assert_contains(raised(t, vm.syscall_bufs, vm, 39, { [bad] = "x" }), "0 to 5")
  end
  t:assert_contains(raised(t, vm.syscall_buf, vm, 39, 0, 5), "string")
end)

test("C-027, C-028: syscall_ptr, and the checks of its specs", function(t)
  local fd = vm:syscall_buf(257, 1, "/tmp/p\0", -100, 0, 578, 420)
  local iov = provium.pack("u64 u64 u64 u64", 0, 4, 0, 2)
  local ret, after, first = vm:syscall_ptr(20, { [1] = iov }, {
    { buf_idx = 1, ptr_offset = 0, data = "ab", data_len = 4, output = true },
    { buf_idx = 1, ptr_offset = 16, data = "cd" } }, fd, 0, 2)
  t:assert_eq(ret .. first, "6ab\0\0")
  t:assert_neq(after, iov, "the addresses are in it")
  t:assert_eq(vm:read_file("/tmp/p"), "ab\0\0cd")
  for _, bad in ipairs {
    { { buf_idx = 0, ptr_offset = 0, data = "x" }, "buf_idx" },
    { { buf_idx = 1, ptr_offset = 25, data = "x" }, "ptr_offset" },
    { { buf_idx = 1, ptr_offset = 0, data = "long", data_len = 2 }, "data" },
    { { buf_idx = 1, ptr_offset = 0 }, "data" },
  } do
    local e = raised(t, vm.syscall_ptr, vm, 20, { [1] = iov }, { bad[1] }, fd, 0, 1)
    t:assert_contains(e, "spec 1")
    t:assert_contains(e, bad[2])
  end
  t:assert_eq(vm:stat("/tmp/p").size, 6, "nothing was executed")
end)

test("C-029: blocks are aligned, empty ones have an address", function(t)
  local holder = ("\0"):rep(24)
  local _, after = vm:syscall_ptr(39, { [0] = holder }, {
    { buf_idx = 0, ptr_offset = 0, data = "x" }, { buf_idx = 0, ptr_offset = 8, data = "yyy" },
    { buf_idx = 0, ptr_offset = 16, data = "" } })
  local a, b, c = provium.unpack("u64 u64 u64", after)
  t:assert_eq(a % 16 + b % 16, 0)
  t:assert(c ~= 0)
end)

test("C-030: kernel errors are values; Lua errors are for bad arguments and lost VMs", function(t)
  t:assert_eq(vm:syscall(5000), -38)
  t:assert_eq(vm:syscall(0, 0, 8, 1 << 62), -14)
  t:assert_contains(raised(t, vm.syscall, vm, "x"), "argument 1")
end)

test("C-031: ioctl by the direction bits", function(t)
  local random = vm:syscall_buf(257, 1, "/dev/urandom\0", -100, 0, 2, 0)
  local result, out = vm:ioctl(random, 0x80045200)
  t:assert_eq(result .. " " .. #out, "0 4", "read: the size encoded in the command")
  result, out = vm:ioctl(random, 0x40045201, provium.pack("i32", 5))
  t:assert_eq(result, 0)
  t:assert_eq(out, nil, "write: no buffer comes back")
  result, out = vm:ioctl(random, 0x541b)
  t:assert_eq(out, nil, "no direction, no data: argument 0")
  t:assert(result < 0)
  local _, ends = vm:syscall_bufs(22, { [0] = ("\0"):rep(8) }, 0)
  local reader, writer = provium.unpack("i32 i32", ends)
  vm:syscall_buf(1, 1, "123", writer, 0, 3)
  result, out = vm:ioctl(reader, 0x541b, "\0\0\0\0")
  t:assert_eq(result .. " " .. provium.unpack("i32", out), "0 3")
  t:assert_eq(vm:ioctl(reader, 0x5421, 1), -14, "an integer is the argument itself")
  t:assert_contains(raised(t, vm.ioctl, vm, reader, {}), "integer")
end)

test("C-032: ioctl_buf patches addresses into the structure", function(t)
  -- SIOCGIFCONF: struct ifconf {int len; char *buf}.
  vm:exec("ip link set lo up")
  local sock = vm:syscall(41, 2, 2, 0)
  local conf = provium.pack("u64 u64", 400, 0)
  for _, guest in ipairs { vm } do
    local result, after, list = guest:ioctl_buf(sock, 0x8912, conf, { { ptr_offset = 8, buf_len = 400, output = true } })
    t:assert_eq(result, 0)
    t:assert_eq((provium.unpack("u32", after)), 40)
    t:assert_eq(list:match("^[^\0]*"), "lo")
  end
  t:assert_contains(raised(t, vm.ioctl_buf, vm, sock, 0x8912, conf, { { ptr_offset = 9, data = "x" } }), "ptr_offset")
  t:assert_contains(raised(t, vm.ioctl_buf, vm, sock, 0x8912, 5), "argument 3")
end)

test("C-033: one thread makes all calls", function(t)
  local tid = vm:syscall(186)
  for _ = 1, 5 do t:assert_eq(vm:syscall(186), tid) end
end)

test("C-034..C-037: jobs", function(t)
  local job = vm:background("echo out; echo err >&2; sleep 1; exit 6")
  t:assert(vm:exec("test -d /proc/" .. job.pid).ok)
  local r = vm:job_wait(job, 0)
  t:assert(r.running and r.exit_code == -1)
  r = vm:job_wait(job, 30)
  t:assert_eq(r.exit_code .. r.stdout .. r.stderr .. tostring(r.running), "6out\nerr\nfalse")
  t:assert_eq(vm:job_wait(job.id).exit_code, 6)
  t:assert_eq(vm:job_kill(job).exit_code, 6, "an ended job: its result")
  local long = vm:background("sleep 1000 & sleep 1000")
  t:assert(vm:job_wait(long, "200ms").running, "a wait never kills")
  r = vm:job_kill(long)
  t:assert_eq(r.exit_code .. tostring(r.running), "137false")
  vm:wait_until(function() return vm:exec("pidof sleep").stdout.value == "" end, { desc = "the end of the group" })
  local e = raised(t, vm.job_wait, vm, 4242)
  t:assert_contains(e, "4242")
  t:assert_contains(e, vm:name())
  t:assert_contains(raised(t, vm.job_kill, vm, 4242), "4242")
end)

local left
test("C-038: a job that is left over", function(t)
  left = vm:background("sleep 1000")
  t:assert(vm:exec("kill -0 " .. left.pid).ok)
end)

test("C-038: is killed at the end of its scope", function(t)
  vm:wait_until(function() return not vm:exec("kill -0 " .. left.pid).ok end, { desc = "the end of the job" })
end)

test("C-004, C-039, C-040: spawned workers speak the dialect of their VM", function(t)
  local w = vm:spawn()
  t:assert_eq(math.type(w:syscall(39)), "integer")
  t:assert_neq(w:syscall(39), vm:syscall(39))
  t:assert_eq(type(v2:spawn():syscall(39)), "table")
  w:syscall(105, 1000)
  local job = w:background("id -u")
  t:assert_eq(w:job_wait(job, 10).stdout, "1000\n")
  t:assert_contains(raised(t, vm.job_wait, vm, job.id), tostring(job.id))
  t:assert_eq(w:exec("id -u").stdout.trim(), "1000")
  t:assert_eq(vm:exec("id -u").stdout.trim(), "0")
end)

test("C-041: what a worker has not", function(t)
  local w = vm:spawn()
  for _, name in ipairs { "boot", "shutdown", "spawn" } do
    local e = raised(t, w[name], w)
    t:assert_contains(e, name)
    t:assert_contains(e, "worker")
  end
  for _, name in ipairs { "exec", "json", "dmesg", "mount_vfs", "wait_until", "syscall_buf", "syscall_bufs",
    "syscall_ptr", "ioctl_buf", "background", "job_wait", "job_kill", "read_file", "write_file", "ioctl" } do
    t:assert_eq(type(w[name]), "function", name)
  end
end)

test("L-120: the classic methods exist on every VM", function(t)
  for _, name in ipairs { "exec", "json", "dmesg", "mount_vfs", "wait_until", "syscall_buf", "syscall_bufs",
    "syscall_ptr", "ioctl_buf", "background", "job_wait", "job_kill", "spawn", "kill" } do
    t:assert_eq(type(v2[name]), "function", name)
    t:assert_eq(v2[name], vm[name], name)
  end
end)

test("C-042: descriptors of before the fork; a thread shares them live", function(t)
  vm:write_file("/tmp/fd", "0123456789")
  local fd = vm:syscall_buf(257, 1, "/tmp/fd\0", -100, 0, 0, 0)
  local forked, thread = vm:spawn(), vm:spawn { thread = true }
  local _, text = forked:syscall_bufs(0, { [1] = "\0\0\0" }, fd, 0, 3)
  t:assert_eq(text, "012")
  vm:syscall(3, fd)
  t:assert_eq(select(1, forked:syscall_bufs(0, { [1] = "\0\0\0" }, fd, 0, 3)), 3)
  t:assert_eq(select(1, thread:syscall_bufs(0, { [1] = "\0\0\0" }, fd, 0, 3)), -9)
  t:assert_eq(thread:syscall(39), vm:syscall(39))
  t:assert_neq(thread:syscall(186), vm:syscall(186))
end)

test("C-043, C-044: kill ends a spawned worker, its jobs, and nobody else", function(t)
  local w, thread = vm:spawn(), vm:spawn { thread = true }
  local job = w:background("sleep 1000")
  local pid = w:syscall(39)
  w:kill()
  w:kill()
  local e = raised(t, w.syscall, w, 39)
  t:assert_contains(e, "worker")
  vm:wait_until(function()
    return not vm:exec("kill -0 " .. job.pid).ok and not vm:exec("kill -0 " .. pid).ok
  end, { desc = "their end" })
  thread:kill()
  t:assert(vm:syscall(39) > 0, "the agent lives on")
end)

test("C-045, C-046, C-047: global assertions", function(t)
  local r = vm:exec("echo text")
  assert_eq("text\n", r.stdout)
  assert_contains(r.stdout, "tex")
  t:assert_contains(raised(t, assert_eq, 1, 2), "expected 1, got 2")
  t:assert_contains(raised(t, assert_eq, "a", "b", "MSG"), 'MSG: expected "a", got "b"')
  t:assert(#raised(t, assert_eq, ("x"):rep(9000), "y") < 2500, "long values are cut")
  t:assert_contains(raised(t, assert_contains, "hay", "needle"), "needle")
  t:assert_contains(raised(t, assert_contains, {}, "x"), "table")
  t:assert_eq(assert("v", "unused"), "v")
end)

test("C-009: shutdown_all", function(t)
  local a = provium.create("minimal")
  provium.shutdown_all()
  t:assert_eq(a:state(), "shutdown")
  t:assert_eq(vm:state(), "booted", "the scope's own only")
end)

test("C-015: a classic shutdown is graceful and may be repeated", function(t)
  vm:shutdown()
  vm:shutdown()
  t:assert_eq(vm:state(), "shutdown")
end)
