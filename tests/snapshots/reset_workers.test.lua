-- Workers of the file's own code under provium.reset_between_tests (lua-api L-011, L-012).
provium.reset_between_tests = true
local vm = provium:vm("a", "minimal", {memory = "128M"}):boot()
vm:write_file("/tmp/x", "baseline")

local workers = {}
for i = 1, 4 do
  local w = vm:spawn_worker {thread = i % 2 == 0}
  local f = w:open_file("/tmp/x", {read = true})
  f:read(i)
  workers[i] = {w = w, f = f, p = w:run_async("sleep 100000"), uid = 1000 + i}
  -- Credentials are those of the worker's own thread, and part of what is restored.
  w:syscall(105, 1000 + i)
end
local threads = vm:run("ls /proc/" .. vm:syscall(39).ret .. "/task | wc -l").stdout

for round = 1, 4 do
  test("L-012: round " .. round .. " starts with four workers as they were", function(t)
    for i, has in ipairs(workers) do
      t:assert_eq(has.w:syscall(186).ret, has.w:tid())
      t:assert_eq(has.w:run("id -u").stdout, has.uid .. "\n")
      t:assert_eq(has.f:read_all(), ("baseline"):sub(i + 1))
      t:assert_eq(has.p:status(), "running")
    end
    t:assert_eq(vm:run("ls /proc/" .. vm:syscall(39).ret .. "/task | wc -l").stdout, threads)
    -- Spoil it, another way each time.
    local own = vm:spawn_worker()
    t:assert_eq(own:run("echo mine").stdout, "mine\n")
    if round == 1 then
      for _, has in ipairs(workers) do vm:syscall(62, has.p:pid(), 9) has.w:join() end
      vm:syscall(62, workers[1].w:pid(), 9)
    elseif round == 2 then
      vm:run("sleep 1000")
    else
      vm:kill()
    end
  end)
end
