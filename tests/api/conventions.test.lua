-- What holds everywhere: globals, durations, sizes, handles, bytes (lua-api section 1).

local vm = provium:vm("a", "minimal", { memory = "128M" }):boot()

-- The message of the error that `fn(...)` raises.
local function raised(t, fn, ...)
  local args = table.pack(...)
  return tostring(t:assert_raises(function() fn(table.unpack(args, 1, args.n)) end))
end

test("L-001, L-246: the whole standard library, and no os.exit", function(t)
  for _, name in ipairs { "string", "table", "math", "io", "os", "utf8", "debug", "coroutine", "package" } do
    t:assert_eq(type(_G[name]), "table", name)
  end
  t:assert_eq(_VERSION, "Lua 5.4")
  local pipe = io.popen("echo from the host")
  t:assert_eq(pipe:read("a"), "from the host\n")
  pipe:close()
  t:assert(os.execute("true"))
  t:assert_contains(raised(t, os.exit, 0), "os.exit is not available")
end)

test("L-002: the globals of every file", function(t)
  for name, kind in pairs { json = "table", test = "function", todo = "function",
    wait_until = "function", assert = "function", assert_eq = "function",
    assert_contains = "function", co = "table" } do
    t:assert_eq(type(_G[name]), kind, name)
  end
  t:assert_eq(type(provium), "userdata")
end)

test("L-003: durations in every spelling", function(t)
  for _, limit in ipairs { 20, 20.5, "20s", "20000ms", "0.5m", "0.01h", "20", "20.5" } do
    t:assert_eq(vm:run("echo in time", { timeout = limit }).stdout, "in time\n", tostring(limit))
  end
  for _, limit in ipairs { "5 s", "5sec", "s", "", "1e", "5d", "-1s", "1s1s", "nan", "inf" } do
    local e = raised(t, vm.run, vm, "true", { timeout = limit })
    t:assert_contains(e, "timeout")
    t:assert_contains(e, limit)
  end
  t:assert_contains(raised(t, vm.run, vm, "true", { timeout = 0 / 0 }), "NaN")
  t:assert_contains(raised(t, vm.run, vm, "true", { timeout = math.huge }), "inf")
  t:assert_contains(raised(t, vm.run, vm, "true", { timeout = -1 }), "-1")
  t:assert_contains(raised(t, vm.run, vm, "true", { timeout = {} }), "table")
end)

test("L-004: sizes in every spelling", function(t)
  for i, size in ipairs { 64 << 20, "64M", "64m", "64MB", "64MiB", "0.0625G", "65536K", "67108864" } do
    provium:vm("s" .. i, "minimal", { memory = size })
  end
  for i, size in ipairs { "64X", "M", "", "64 M", "6 4M", "-64M", "64MM", "1e3M" } do
    local e = raised(t, provium.vm, provium, "bad" .. i, "minimal", { memory = size })
    t:assert_contains(e, "memory")
    t:assert_contains(e, size)
  end
  t:assert_contains(raised(t, provium.vm, provium, "worse", "minimal", { memory = true }), "boolean")
end)

test("L-004: a decimal size is what the guest gets", function(t)
  local b = provium:vm("b", "minimal", { memory = "0.125G" }):boot()
  local total = tonumber(b:read_file("/proc/meminfo"):match("MemTotal:%s*(%d+)")) // 1024
  t:assert(total > 80 and total <= 128, total .. " MiB")
end)

test("L-005: handles", function(t)
  t:assert_eq(provium:vm("a"), vm)
  t:assert_eq(tostring(provium:vm("a")), tostring(vm))
  t:assert(tostring(vm):match("^VM%(a#%d+%)$"), tostring(vm))
  local seen = { [vm] = "found" }
  t:assert_eq(seen[provium.a], "found")
  local f, g = vm:open_file("/etc/passwd", { read = true }), vm:open_file("/etc/passwd", { read = true })
  t:assert_neq(f, g)
  t:assert_neq(tostring(f), tostring(g))
  local ok, e = pcall(vm.read_file, vm, "/none")
  t:assert(not ok)
  t:assert_contains(e, "/none")
  -- A method without its handle says what is missing.
  t:assert_contains(raised(t, vm.read_file, "/etc/passwd"), "vm:read_file")
end)

test("L-008: strings are bytes, patterns are plain", function(t)
  local all = {}
  for byte = 0, 255 do all[#all + 1] = string.char(byte) end
  local bytes = table.concat(all):rep(20)
  vm:write_file("/tmp/bytes", bytes)
  t:assert(vm:read_file("/tmp/bytes") == bytes)
  t:assert(vm:run({ "cat" }, { stdin = bytes }).stdout == bytes)
  local p = vm:run_async("printf 'a.b%%d axb [x]\\n'; printf '\\0\\377end'")
  local out = p:stdout_stream()
  t:assert_eq(out:read_until("[x]"), "a.b%d axb [x]")
  t:assert_eq(out:read_until("\0\xff"), "\n\0\xff")
  out:expect("end")
  -- Names of files are bytes too.
  vm:write_file("/tmp/\xff\xfe name\n", "odd")
  t:assert_eq(vm:read_file("/tmp/\xff\xfe name\n"), "odd")
  t:assert_contains(raised(t, vm.write_file, vm, "/tmp/nul\0here", "x"), "vm:write_file")
end)

test("L-009: coroutines of Lua itself are untouched", function(t)
  local generate = coroutine.wrap(function() for i = 1, 3 do coroutine.yield(i) end end)
  t:assert_eq(generate() + generate() + generate(), 6)
  -- A harness call inside an ordinary coroutine waits like the body would.
  local inside = coroutine.wrap(function() coroutine.yield(vm:run("echo x").stdout) end)
  t:assert_eq(inside(), "x\n")
end)

test("L-007: host paths are relative to the file that makes the call, where they name sources", function(t)
  local dir = os.tmpname()
  os.remove(dir)
  assert(os.execute("mkdir -p " .. dir .. "/deep"))
  local function write(name, text)
    local f = assert(io.open(dir .. "/" .. name, "w"))
    f:write(text)
    f:close()
  end
  write("deep/data.txt", "beside the helper")
  write("deep/helper.lua", [[
    return {
      push = function(vm) vm:push_file("data.txt", "/tmp/pushed") end,
      depend = function(lab) lab:depends_on_file("data.txt") end,
      missing = function(vm) vm:push_file("absent.txt", "/tmp/pushed") end,
    }]])
  local helper = dofile(dir .. "/deep/helper.lua")
  local vm = provium:vm("paths", "minimal", { memory = "96M" }):boot()
  helper.push(vm)
  t:assert_eq(vm:read_file("/tmp/pushed"), "beside the helper")
  helper.depend(provium)
  local e = tostring(t:assert_raises(function() helper.missing(vm) end))
  t:assert_contains(e, dir .. "/deep/absent.txt")
  t:assert_contains(tostring(t:assert_raises(function() vm:push_file("data.txt", "/tmp/x") end)), "data.txt")
  -- Elsewhere a path is relative to the directory the run was started in.
  local target = os.tmpname()
  local up = ("../"):rep(30) .. target:sub(2)
  os.remove(target)
  local snapshot = vm:snapshot(up)
  vm:shutdown()
  vm:restore(up)
  t:assert_eq(vm:read_file("/tmp/pushed"), "beside the helper")
  os.remove(target)
  os.execute("rm -r " .. dir)
end)
