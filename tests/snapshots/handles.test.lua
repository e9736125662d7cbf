-- What a test does to handles of the file's own code, a restore undoes (lua-api L-012, L-250).
provium.reset_between_tests = true
local vm = provium:vm("a", "minimal", {memory = "128M"}):boot()
vm:write_file("/tmp/x", "baseline")

local f = vm:open_file("/tmp/x", {read = true})
local closed_before = vm:open_file("/tmp/x", {read = true})
closed_before:close()
local p, ended_before = vm:run_async("cat; exit 3"), vm:run_async("exit 5")
ended_before:wait("5s")
local w, thread = vm:spawn_worker(), vm:spawn_worker {thread = true}
local in_worker, of_worker = w:open_file("/tmp/x", {read = true}), w:run_async("read x; echo $x")

local function raised(t, fn) return tostring(t:assert_raises(fn)) end

for round = 1, 3 do
  test("L-012: round " .. round .. " finds open what the round before has closed", function(t)
    t:assert(f:fd() ~= 0)
    t:assert_eq(f:read(4), "base")
    t:assert_contains(raised(t, function() closed_before:read(1) end), "file is closed")
    t:assert_eq(ended_before:wait("1s").exit_code, 5)
    t:assert_eq(p:status(), "running")
    p:stdin_write("round " .. round .. "\n")
    p:close_stdin()
    t:assert_contains(raised(t, function() p:stdin_write("x") end), "standard input is closed")
    local r = p:wait("10s")
    t:assert_eq(r.stdout .. r.exit_code, "round " .. round .. "\n3")
    t:assert_eq(p:wait("10s").stdout, r.stdout, "the same again")
    t:assert_eq(w:syscall(39).ret, w:pid())
    t:assert_eq(in_worker:read_all(), "baseline")
    t:assert_eq(vm:open_file_count(), 2)
    of_worker:stdin_write("w" .. round .. "\n")
    t:assert_eq(of_worker:wait("10s").stdout, "w" .. round .. "\n")
    -- What is closed does not wait for anybody, and is back all the same.
    if round == 2 then vm:run("sleep 1000") end
    t:assert_eq(thread:syscall(186).ret, thread:tid())
    for _ = 1, 2 do
      f:close() p:close() in_worker:close() of_worker:close() w:close() thread:close()
    end
    t:assert_eq(f:fd(), 0)
    t:assert_eq(vm:open_file_count(), 0)
    for _, use in ipairs {function() w:run("true") end, function() thread:run("true") end} do
      t:assert_contains(raised(t, use), "worker is closed")
    end
  end)
end
