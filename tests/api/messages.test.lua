-- What every error must name (lua-api section 19): call, resource, fact, way out, the author's line.

local vm = provium:vm("a", "minimal", { memory = "96M" }):boot()

local function raised(t, fn)
  return tostring(t:assert_raises(fn))
end

test("L-230, L-231, L-232, L-249: guest failures", function(t)
  local at = debug.getinfo(1, "l").currentline + 1
  local e = raised(t, function() vm:read_file("/none") end)
  t:assert_eq(e:match("^[^:]*messages.test.lua:(%d+): "), tostring(at))
  for _, part in ipairs { "vm:read_file", "vm a", "/none", "No such file or directory", "2" } do
    t:assert_contains(e, part)
  end
  t:assert(not e:find("%[provium%]") and not e:find("prelude"), e)
end)

test("L-232: the author's line is found through pcall, helpers and tasks", function(t)
  local function helper() vm:stat("/none") end
  local at = debug.getinfo(helper, "S").linedefined
  local _, direct = pcall(vm.stat, vm, "/none")
  t:assert_contains(direct, "messages.test.lua:")
  t:assert_contains(raised(t, helper), "messages.test.lua:" .. at .. ": ")
  local task = co.spawn(helper)
  t:assert_contains(raised(t, function() task:join() end), "messages.test.lua:" .. at .. ": ")
end)

test("L-231: wrong types name position, name, got and wanted", function(t)
  for _, case in ipairs {
    { function() vm:read_file(5) end, "vm:read_file", "argument 1 (path)", "string", "integer" },
    { function() vm:read_file() end, "vm:read_file", "argument 1 (path)", "string", "nil" },
    { function() vm:write_file("/x", {}) end, "vm:write_file", "argument 2 (data)", "string", "table" },
    { function() vm:rename("/x", 1.5) end, "vm:rename", "argument 2 (to)", "string" },
    { function() vm:stat("/", "follow") end, "vm:stat", "opts", "table", "string" },
    { function() vm:mkdir("/x", { perm = "755" }) end, "vm:mkdir", "perm", "string" },
    { function() vm:mkdir("/x", { perm = 99999 }) end, "vm:mkdir", "perm", "99999" },
    { function() vm:mkdir("/x", { parents = 1 }) end, "vm:mkdir", "parents" },
    { function() vm:open_file("/x", { read = "yes" }) end, "vm:open_file", "read" },
    { function() vm:clock():set("now") end, "clock:set", "string" },
    { function() vm:spawn_worker { thred = true } end, "vm:spawn_worker", "thred", "thread" },
    { function() vm:run("x", 5) end, "vm:run", "argument 2" },
    { function() vm:read_file("/x", "y") end, "vm:read_file", "takes 1 argument, got 2" },
    { function() vm:pause(5) end, "vm:pause", "takes 0 arguments, got 1" },
    { function() vm:console():read_log(nil, 1) end, "console:read_log", "takes 0 arguments, got 2" },
    { function() vm:batch(function(b) b:syscall(39, { args = {} }) end) end, "b:syscall", "integers only", "vm:syscall" },
    { function() vm:console():expect(5) end, "console:expect", "string" },
    { function() vm:console():write("x", { timout = 1 }) end, "console:write", "timout", "timeout" },
  } do
    local e = raised(t, case[1])
    t:assert_contains(e, "messages.test.lua:")
    for i = 2, #case do t:assert_contains(e, case[i]) end
  end
end)

test("L-231: unknown methods are Lua's own error, at the author's line", function(t)
  local e = raised(t, function() vm:raed_file("/x") end)
  t:assert_contains(e, "raed_file")
  t:assert_contains(e, "messages.test.lua:")
end)

test("L-231: timeouts name what was awaited, and how long", function(t)
  local s = vm:run_async("sleep 1000"):stdout_stream()
  local e = raised(t, function() s:read_until("the word", "300ms") end)
  for _, part in ipairs { "timed out waiting for", "the word", "0.3s", "proc_stdout_stream", "vm a" } do
    t:assert_contains(e, part)
  end
  e = raised(t, function() wait_until(function() end, { timeout = 2, interval = "1s", desc = "peace" }) end)
  t:assert_contains(e, "peace not met within 2s")
end)

test("L-233: nothing says only that there was an internal error", function(t)
  for _, case in ipairs {
    function() vm:syscall(39, { bufs = { "x" }, ptrs = { 9 } }) end,
    function() vm:run({ "/dev/null" }) end,
    function() vm:open_file("/dev/null/x", { read = true }) end,
    function() vm:push_file("/proc/self/mem", "/tmp/x") end,
    function() vm:write_file("/dev/full", "x") end,
    function() vm:mkdir(("x"):rep(5000)) end,
    function() vm:run(("x"):rep(300000)) end,
  } do
    local e = raised(t, case)
    t:assert(not e:lower():find("internal error", 1, true), e)
    t:assert_contains(e, "vm:")
    t:assert(#e > 30, e)
  end
end)

test("L-234: stable words", function(t)
  local f = vm:open_file("/etc/passwd", { read = true })
  t:assert_contains(raised(t, function() f:seek(0, "up") end), "whence must be set/cur/end, got `up`")
  f:close()
  t:assert_contains(raised(t, function() f:read(1) end), "file is closed")
  local p = vm:run_async("true")
  t:assert_contains(raised(t, function() p:signal("nosuch") end), "unknown signal name `nosuch`")
  p:wait("10s")
  local s = p:stdout_stream()
  t:assert_contains(raised(t, function() s:expect("x") end), "stream EOF")
  t:assert_contains(raised(t, function() vm:clock():set(0 / 0) end), "must be a finite number (got NaN/inf)")
  t:assert_contains(raised(t, function() vm:console():write("x", { timeout_ms = 1 }) end), "opts.timeout_ms is not supported")
end)

test("L-243: a guest that powers off ends what runs, at once", function(t)
  local e = raised(t, function() vm:run("poweroff -f; sleep 1000") end)
  t:assert_contains(e, "vm:run")
  t:assert_contains(e, "vm a")
  t:assert_eq(vm:state(), "shutdown")
  t:assert_contains(raised(t, function() vm:run("true") end), "vm:boot")
end)

test("L-200, L-079: a stream is told with its kind, what it is of, and where it was opened", function(t)
  vm:boot()
  vm:write_file("/tmp/told", "x")
  local f = vm:open_file("/tmp/told", { read = true })
  local p = vm:run_async("sleep 1000")
  local first = debug.getinfo(1, "l").currentline
  local streams = {
    vm:tail_file("/tmp/told"),
    vm:fd_stream(f:fd()),
    f:tail_stream(),
    p:stdout_stream(),
    p:stderr_stream(),
    vm:console():read(),
  }
  local e = raised(t, function() vm:snapshot() end)
  for i, kind in ipairs { "tail_file", "fd_stream", "file_tail_stream", "proc_stdout_stream", "proc_stderr_stream", "console" } do
    local line = e:match("[^\n]*" .. kind .. "[^\n]*")
    t:assert(line, "no " .. kind .. " in: " .. e)
    t:assert_contains(line, "messages.test.lua:" .. first + 1 + i)
  end
  t:assert_contains(e, "/tmp/told")
  for _, s in ipairs(streams) do s:close() s:close() end
  p:kill()
  p:wait("5s")
  p:close()
  f:close()
end)
