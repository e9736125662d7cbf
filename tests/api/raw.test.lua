-- Raw kernel access of a v2 VM: shapes, checks, large calls, memory (lua-api 5.6, L-235..L-238, L-252).

local vm = provium:vm("a", "minimal"):boot()

local function raised(t, fn, ...)
  local args = table.pack(...)
  return tostring(t:assert_raises(function() fn(table.unpack(args, 1, args.n)) end))
end

test("L-107: the result in full", function(t)
  local r = vm:syscall(39)
  t:assert(r.ret > 0 and r.ret == r.result and r.ret == r.raw)
  t:assert_eq(r.errno .. type(r.out_bufs) .. #r.out_bufs, "0table0")
  r = vm:syscall(3, 9999)
  t:assert_eq(r.ret .. r.result .. r.raw .. r.errno, "-1-1-99")
  t:assert_eq(vm:syscall(39.0).ret, vm:syscall(39).ret)
  -- A huge value is no error: mmap's addresses, and -4096.
  t:assert_eq(vm:syscall(4000).errno, 38)
end)

test("L-108: ptrs, nested, and slots beyond the arguments", function(t)
  local r = vm:syscall(63, { bufs = { ("\0"):rep(390) }, ptrs = { 0 } })
  t:assert_eq(r.out_bufs[1]:match("^%w+"), "Linux")
  -- writev(1 file, iovec[2]) with both strings hanging in one array.
  local f = vm:open_file("/tmp/v", { write = true, create = true })
  local iov = string.pack("<I8I8I8I8", 0, 3, 0, 2)
  r = vm:syscall(20, { args = { f:fd(), 0, 2 }, bufs = { iov, "abc", "de" }, ptrs = { 1 },
    nested = { { parent = 1, child = 2, offset = 0 }, { parent = 1, child = 3, offset = 16 } } })
  t:assert_eq(r.ret, 5)
  t:assert_eq(vm:read_file("/tmp/v"), "abcde")
  for _, bad in ipairs {
    { { ptrs = { 6 }, bufs = { "x" } }, "ptrs" }, { { ptrs = { 0 } }, "ptrs" },
    { { bufs = { "x" }, nested = { { parent = 1, child = 1, offset = 0 } } }, "offset" },
    { { bufs = { ("x"):rep(8) }, nested = { { parent = 2, child = 1, offset = 0 } } }, "parent" },
    { { bufs = { ("x"):rep(8) }, nested = { { parent = 1, child = 5, offset = 0 } } }, "child" },
    { { bufs = { 5 } }, "bufs" }, { { args = { "x" } }, "args" }, { { arg = {} }, "arg" },
    { { args = { 1, 2, 3, 4, 5, 6, 7 } }, "args" },
  } do
    local e = raised(t, vm.syscall, vm, 39, bad[1])
    t:assert_contains(e, "vm:syscall")
    t:assert_contains(e, bad[2])
  end
end)

test("L-109: positions and types of wrong arguments", function(t)
  local e = raised(t, vm.syscall, vm, 39, 1, 2, 3, 4, 5, 6, 7)
  t:assert_contains(e, "6")
  t:assert_contains(raised(t, vm.syscall, vm), "argument 1")
  t:assert_contains(raised(t, vm.syscall, vm, "getpid"), "string")
  t:assert_contains(raised(t, vm.syscall, vm, -1), "-1")
  t:assert_contains(raised(t, vm.syscall, vm, 1 << 31), tostring(1 << 31))
  t:assert_contains(raised(t, vm.syscall, vm, 39.5), "argument 1")
  e = raised(t, vm.syscall, vm, 39, 1, "two")
  t:assert_contains(e, "argument 3")
  t:assert_contains(e, "string")
  t:assert_contains(raised(t, vm.syscall, vm, 39, 1.5), "argument 2")
end)

test("L-110: one thread, so what a call sets up holds for the next", function(t)
  t:assert_eq(vm:syscall(186).ret, vm:syscall(186).ret)
  vm:syscall(95, 63)
  t:assert_eq(vm:syscall(95, 18).ret, 63)
end)

test("L-111: ioctl", function(t)
  local pipe = vm:syscall(22, { bufs = { ("\0"):rep(8) }, ptrs = { 0 } })
  local reader, writer = string.unpack("<i4i4", pipe.out_bufs[1])
  vm:syscall(1, { args = { writer, 0, 4 }, bufs = { "four" }, ptrs = { 1 } })
  local FIONREAD, RND_GET = 0x541b, 0x80045200
  local r = vm:ioctl(reader, FIONREAD, "\0\0\0\0")
  t:assert_eq(r.ret .. " " .. string.unpack("<i4", r.out_data), "0 4")
  -- A command that says it writes four bytes gets a zeroed buffer of that size.
  local random = vm:open_file("/dev/urandom", { read = true })
  r = vm:ioctl(random:fd(), RND_GET)
  t:assert_eq(r.ret, 0)
  t:assert_eq(#r.out_data, 4)
  t:assert_eq(vm:ioctl(random:fd(), 0x5421, 5).errno, 14, "an integer is passed as it is")
  r = vm:ioctl(9999, FIONREAD, "\0\0\0\0")
  t:assert_eq(r.ret .. r.result .. r.errno, "-1-19")
  local e = raised(t, vm.ioctl, vm, 0, 0, "short", { bufs = { "x" }, ptr_offsets = { 4 } })
  t:assert_contains(e, "ptr_offsets")
  t:assert_contains(raised(t, vm.ioctl, vm, 0, 0, {}), "argument 3")
  t:assert_contains(raised(t, vm.ioctl, vm, "x", 0), "argument 1")
end)

test("L-235: calls of their own thread: await, cancel, many at once", function(t)
  local pipe = vm:syscall(22, { bufs = { ("\0"):rep(8) }, ptrs = { 0 } })
  local reader, writer = string.unpack("<i4i4", pipe.out_bufs[1])
  local handles = {}
  for i = 1, 20 do
    handles[i] = vm:syscall_async(0, { args = { reader, 0, 1 }, bufs = { "\0" }, ptrs = { 1 } })
  end
  local e = raised(t, handles[1].await, handles[1], "50ms")
  t:assert_contains(e, "timed out waiting for")
  t:assert_contains(e, "0.05s")
  t:assert(not handles[1]:done())
  t:assert_eq(vm:syscall(39).errno, 0, "the queue of plain calls is free")
  vm:syscall(1, { args = { writer, 0, 18 }, bufs = { ("x"):rep(18) }, ptrs = { 1 } })
  wait_until(function()
    local n = 0
    for i = 1, 20 do n = n + (handles[i]:done() and 1 or 0) end
    return n == 18
  end)
  local cut = 0
  for i = 1, 20 do
    if not handles[i]:done() then
      handles[i]:cancel()
      local r = handles[i]:await("10s")
      t:assert_eq(r.ret .. " " .. r.errno, "-1 4")
      cut = cut + 1
    else
      local r = handles[i]:await()
      t:assert_eq(r.ret .. r.out_bufs[1], "1x")
      t:assert_eq(handles[i]:await().ret, 1, "again")
    end
  end
  t:assert_eq(cut, 2)
end)

test("L-236: a thousand buffers, children of children, one child in many places", function(t)
  local f = vm:open_file("/tmp/big", { write = true, create = true })
  -- 1,000 entries of one iovec array, all pointing to the same eight bytes.
  local entries, nested = {}, {}
  for i = 1, 1000 do
    entries[i] = string.pack("<I8I8", 0, 8)
    nested[i] = { parent = 1, child = 2, offset = (i - 1) * 16 }
  end
  local r = vm:syscall(20, { args = { f:fd(), 0, 1000 }, bufs = { table.concat(entries), "sameagin" },
    ptrs = { 1 }, nested = nested })
  t:assert_eq(r.ret, 8000)
  -- 1,024 buffers in a call.
  local bufs, links = { ("\0"):rep(1023 * 8) }, {}
  for i = 2, 1024 do
    bufs[i] = "buffer " .. i
    links[i - 1] = { parent = 1, child = i, offset = (i - 2) * 8 }
  end
  r = vm:syscall(39, { bufs = bufs, nested = links })
  t:assert_eq(#r.out_bufs, 1024)
  t:assert_eq(r.out_bufs[1024], "buffer 1024")
  -- sendmmsg: message -> vector -> text, three levels.
  local pair = vm:syscall(53, { args = { 1, 2, 0, 0 }, bufs = { ("\0"):rep(8) }, ptrs = { 3 } })
  local a, b = string.unpack("<i4i4", pair.out_bufs[1])
  r = vm:syscall(46, { args = { a, 0, 0 }, bufs = {
      string.pack("<I8I4I4I8I8I8I8I4I4", 0, 0, 0, 0, 1, 0, 0, 0, 0), string.pack("<I8I8", 0, 5), "three" },
    ptrs = { 1 }, nested = { { parent = 1, child = 2, offset = 16 }, { parent = 2, child = 3, offset = 0 } } })
  t:assert_eq(r.ret, 5)
  r = vm:syscall(0, { args = { b, 0, 9 }, bufs = { ("\0"):rep(9) }, ptrs = { 1 } })
  t:assert_eq(r.out_bufs[1]:sub(1, r.ret), "three")
end)

test("L-236, L-252: buffers of megabytes go and come", function(t)
  local data = ("0123456789abcdef"):rep(5 << 16)
  local f = vm:open_file("/tmp/mega", { read = true, write = true, create = true })
  local r = vm:syscall(1, { args = { f:fd(), 0, #data }, bufs = { data }, ptrs = { 1 } })
  t:assert_eq(r.ret, #data)
  t:assert(r.out_bufs[1] == data)
  r = vm:syscall(17, { args = { f:fd(), 0, #data, 0 }, bufs = { ("\0"):rep(#data) }, ptrs = { 1 } })
  t:assert(r.out_bufs[1] == data)
  local e = raised(t, vm.syscall, vm, 39, { bufs = { ("x"):rep((256 << 20) + 1) } })
  t:assert_contains(e, "256")
end)

test("L-237, L-238: memory of the agent and of the machine", function(t)
  local at = vm:syscall(9, 0, 3 << 20, 3, 0x22, -1, 0).ret
  local text = ("marker %d "):format(os.time()):rep(1000)
  vm:write_mem(at + 5, text)
  t:assert(vm:read_mem(at + 5, #text) == text)
  t:assert_eq(#vm:read_mem(at, 3 << 20), 3 << 20)
  t:assert_contains(raised(t, vm.read_mem, vm, 16, 1), "EFAULT")
  t:assert_contains(raised(t, vm.read_mem, vm, at, -1), "len")
  -- The physical page, by the kernel's own table.
  local pagemap = vm:open_file("/proc/" .. vm:syscall(39).ret .. "/pagemap", { read = true })
  pagemap:seek(at // 4096 * 8)
  local frame = string.unpack("<I8", pagemap:read(8)) & (1 << 55) - 1
  t:assert(frame ~= 0)
  t:assert_eq(vm:phys_read(frame * 4096 + 5, 6), "marker")
  vm:phys_write(frame * 4096 + 5, "MARKER")
  t:assert_eq(vm:read_mem(at + 5, 6), "MARKER")
  local e = raised(t, vm.phys_read, vm, 1 << 50, 1)
  t:assert_contains(e, "vm:phys_read")
  t:assert_contains(e, "vm a")
  t:assert_contains(raised(t, vm.phys_write, vm, 1 << 50, "x"), "vm:phys_write")
end)
