-- Workers: further agent processes in the same guest, with credentials and descriptors of
-- their own, working side by side.

local SYS = { getpid = 39, setuid = 105, getuid = 102, pipe = 22, read = 0, write = 1 }

local vm = provium:vm("a", "minimal"):boot()

test("a worker is a process of its own", function(t)
  local w = vm:spawn_worker()
  t:assert_eq(w:syscall(SYS.getpid).ret, w:pid())
  t:assert_neq(w:pid(), vm:syscall(SYS.getpid).ret)
end)

test("it may drop its privileges; nobody else does", function(t)
  local w = vm:spawn_worker()
  t:assert_eq(w:syscall(SYS.setuid, 1000).ret, 0)
  t:assert_eq(w:run("id -u").stdout, "1000\n")
  t:assert_eq(vm:run("id -u").stdout, "0\n")
  local err = t:assert_raises(function() w:write_file("/etc/forbidden", "x") end)
  t:assert_contains(err, "Permission denied")
end)

test("a worker that blocks holds up nobody else", function(t)
  -- The pipe is made before the worker is forked, so both have it.
  local r = vm:syscall(SYS.pipe, { bufs = { ("\0"):rep(8) }, ptrs = { 0 } })
  local reader, writer = provium.unpack("u32 u32", r.out_bufs[1])
  local w = vm:spawn_worker()

  local call = w:syscall_async(SYS.read, { args = { reader, 0, 4 }, bufs = { "\0\0\0\0" }, ptrs = { 1 } })
  t:assert(not call:done())
  vm:syscall(SYS.write, { args = { writer, 0, 4 }, bufs = { "ping" }, ptrs = { 1 } })
  t:assert_eq(call:await("10s").out_bufs[1], "ping")
end)
