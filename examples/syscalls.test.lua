-- Raw system calls: the test decides every argument and sees every byte the kernel writes.
-- Numbers are those of x86-64. No shell, no libc, nothing in between.

local SYS = { open = 2, close = 3, pipe = 22, getpid = 39, uname = 63, getcwd = 79,
  write = 1, read = 0, openat = 257, gettid = 186 }
local AT_FDCWD, ENOENT = -100, 2

local vm = provium:vm("a", "minimal"):boot()

test("a call without buffers", function(t)
  local r = vm:syscall(SYS.getpid)
  t:assert_eq(r.errno, 0)
  t:assert(r.ret > 1, "the agent is not PID 1")
  -- All calls are made by one thread, so what one sets up is there for the next.
  t:assert_eq(vm:syscall(SYS.gettid).ret, vm:syscall(SYS.gettid).ret)
end)

test("a buffer that the kernel fills: uname", function(t)
  -- struct utsname is six fields of 65 bytes; argument 0 gets the buffer's address.
  local r = vm:syscall(SYS.uname, { bufs = { ("\0"):rep(6 * 65) }, ptrs = { 0 } })
  t:assert_eq(r.ret, 0)
  local function field(n) return (r.out_bufs[1]:sub(n * 65 + 1):match("^[^\0]*")) end
  t:assert_eq(field(0), "Linux")
  t:assert_eq(field(4), "x86_64")
  t:log("release " .. field(2))
end)

test("a buffer that the kernel reads: openat", function(t)
  local r = vm:syscall(SYS.openat, { args = { AT_FDCWD, 0, 0, 0 }, bufs = { "/proc/version\0" }, ptrs = { 1 } })
  t:assert(r.ret >= 0, "openat failed with errno " .. r.errno)

  local text = vm:syscall(SYS.read, { args = { r.ret, 0, 64 }, bufs = { ("\0"):rep(64) }, ptrs = { 1 } })
  t:assert_contains(text.out_bufs[1], "Linux version")
  t:assert_eq(vm:syscall(SYS.close, r.ret).ret, 0)
end)

test("failures are values, not errors", function(t)
  local r = vm:syscall(SYS.openat, { args = { AT_FDCWD, 0, 0, 0 }, bufs = { "/nowhere\0" }, ptrs = { 1 } })
  t:assert_eq(r.ret, -1)
  t:assert_eq(r.errno, ENOENT)
  t:assert_eq(r.raw, -ENOENT)
end)

test("a pipe, end to end", function(t)
  local r = vm:syscall(SYS.pipe, { bufs = { ("\0"):rep(8) }, ptrs = { 0 } })
  local reader, writer = provium.unpack("u32 u32", r.out_bufs[1])

  t:assert_eq(vm:syscall(SYS.write, { args = { writer, 0, 5 }, bufs = { "hello" }, ptrs = { 1 } }).ret, 5)
  local got = vm:syscall(SYS.read, { args = { reader, 0, 16 }, bufs = { ("\0"):rep(16) }, ptrs = { 1 } })
  t:assert_eq(got.out_bufs[1]:sub(1, got.ret), "hello")

  vm:syscall(SYS.close, reader)
  vm:syscall(SYS.close, writer)
end)
