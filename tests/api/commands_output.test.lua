-- Commands whose output is large, late, or held open by others (lua-api L-084..L-095).

local vm = provium:vm("a", "minimal"):boot()

local function raised(t, fn, ...)
  local args = table.pack(...)
  return tostring(t:assert_raises(function() fn(table.unpack(args, 1, args.n)) end))
end

test("L-088: 64 MiB of output", { timeout = "300s" }, function(t)
  local size = 64 << 20
  local r = vm:run("head -c " .. size .. " /dev/zero; echo end >&2")
  t:assert_eq(#r.stdout, size)
  t:assert_eq(r.stderr, "end\n")
  t:assert(not r.stdout:find("[^\0]"))
end)

test("L-088: both outputs full at once, neither holds up the other", function(t)
  local r = vm:run("head -c 300000 /dev/zero >&2; head -c 300000 /dev/zero; head -c 300000 /dev/zero >&2")
  t:assert_eq(#r.stdout .. " " .. #r.stderr, "300000 600000")
end)

test("L-088: a command that closes its output and lingers is waited for", function(t)
  local before = vm:clock():get_ns()
  local r = vm:run("echo said; exec >&- 2>&-; sleep 2; exit 5")
  t:assert_eq(r.exit_code .. r.stdout, "5said\n")
  local took = (vm:clock():get_ns() - before) / 1e9
  t:assert(took >= 2, "ended after " .. took)
end)

test("L-088: a daemon that holds the pipe delays the result at most a second", function(t)
  local before = vm:clock():get_ns()
  local r = vm:run("sleep 1000 & echo $!; exit 3")
  local took = (vm:clock():get_ns() - before) / 1e9
  t:assert_eq(r.exit_code, 3)
  local pid = tonumber(r.stdout)
  t:assert(pid, r.stdout)
  t:assert(took < 3, "took " .. took)
  t:assert(vm:stat("/proc/" .. pid), "the daemon itself lives on")
  vm:run("kill " .. pid)
end)

test("L-086: a timeout kills the whole group and keeps the output", function(t)
  local before = vm:clock():get_ns()
  local r = vm:run("echo $$; (sleep 1000; echo never) & sleep 1000", { timeout_ms = 500 })
  t:assert_eq(r.status .. " " .. r.exit_code, "timed_out -2")
  t:assert(r.timed_out and not r:ok())
  local took = (vm:clock():get_ns() - before) / 1e9
  t:assert(took >= 0.5 and took < 4, "took " .. took)
  -- Ended processes may wait a moment for their parent.
  wait_until(function() return vm:run("pidof sleep").stdout == "" end, { desc = "the end of the group" })
  t:assert_contains(raised(t, r.assert_ok, r), "timed_out")
end)

test("L-089: commands see the root and the mounts of the first process", function(t)
  t:assert_eq(vm:run("readlink /proc/self/root").stdout, "/\n")
  t:assert_eq(vm:run("readlink /proc/self/ns/mnt").stdout, vm:run("readlink /proc/1/ns/mnt").stdout)
end)

test("L-084, L-085: shapes that are refused", function(t)
  t:assert_contains(raised(t, vm.run, vm), "argument 1 (cmd)")
  t:assert_contains(raised(t, vm.run, vm, {}), "vm:run")
  t:assert_contains(raised(t, vm.run, vm, "x", { args = "a" }), "args")
  t:assert_contains(raised(t, vm.run, vm, "x", { args = { 1 } }), "args")
  t:assert_contains(raised(t, vm.run, vm, "x", { cwd = 1 }), "cwd")
  t:assert_contains(raised(t, vm.run, vm, "x", { env = "A=1" }), "env")
  t:assert_contains(raised(t, vm.run, vm, "x", { env = { ["A=B"] = "x" } }), "A=B")
  t:assert_contains(raised(t, vm.run, vm, "x", { env_clear = 1 }), "env_clear")
  t:assert_contains(raised(t, vm.run, vm, "x", { timeout_ms = "5" }), "timeout_ms")
  local e = raised(t, vm.run, vm, "pwd", { cwd = "/no/such/dir" })
  t:assert_contains(e, "/no/such/dir")
  t:assert_contains(e, "No such file or directory")
  t:assert_contains(raised(t, vm.run, vm, { "/etc/passwd" }), "Permission denied")
end)

test("L-090: run_async has no timeout of its own", function(t)
  for _, key in ipairs { "timeout", "timeout_ms" } do
    local e = raised(t, vm.run_async, vm, "true", { [key] = 5 })
    t:assert_contains(e, key)
    t:assert_contains(e, "proc:wait")
  end
  t:assert_contains(raised(t, vm.run_async, vm, { "nosuchprogram" }), "nosuchprogram")
end)

test("L-085: 10 MiB of standard input, and a reader that does not want it", function(t)
  local text = ("0123456789abcdef"):rep(10 << 16)
  t:assert_eq(vm:run("md5sum", { stdin = text }).stdout:sub(1, 32),
    vm:run("for i in 1 2 3 4 5 6 7 8 9 10; do yes 0123456789abcdef | head -n 65536 | tr -d '\\n'; done | md5sum").stdout:sub(1, 32))
  t:assert_eq(vm:run("exit 4", { stdin = text }).exit_code, 4)
end)

test("L-095: assert_ok tells everything, cut to the last 4 KiB", function(t)
  local e = raised(t, function()
    vm:run("echo first; yes filler | head -c 9000; echo last; kill -11 $$"):assert_ok()
  end)
  for _, part in ipairs { "signalled", "-1", "11", "segv", "last" } do t:assert_contains(e:lower(), part) end
  t:assert(not e:find("stdout: first", 1, true))
end)
