-- States, scopes and names (lua-api sections 3 to 5).

local vm = provium:vm("file", "minimal", { memory = "128M" })
local root = provium

test("L-047..L-056: wrong states are named, with the way out", function(t)
  local e = t:assert_raises(function() vm:run("true") end)
  for _, part in ipairs { "vm:run", "vm file", "created", "vm:boot" } do t:assert_contains(e, part) end
  t:assert_contains(t:assert_raises(function() vm:pause() end), "created")
  t:assert_eq(vm:cid(), nil)
  t:assert_eq(vm:console():read_log(), "")
end)

test("L-047: boot, pause, resume, shutdown", function(t)
  t:assert_eq(vm:boot(), vm)
  t:assert_contains(t:assert_raises(function() vm:boot() end), "booted")
  vm:pause()
  t:assert_eq(vm:state(), "paused")
  t:assert_contains(t:assert_raises(function() vm:run("true") end), "paused")
  vm:resume()
  t:assert_eq(vm:run("echo x").stdout, "x\n")
  t:assert(vm:cid() >= 10)
  vm:shutdown()
  vm:shutdown()
  t:assert_eq(vm:state(), "shutdown")
end)

test("L-005: handles", function(t)
  t:assert_eq(provium:vm("file"), vm)
  t:assert(tostring(vm):match("^VM%(file#%d+%)$"), tostring(vm))
  t:assert_eq(tostring(provium:vm("file")), tostring(vm))
  t:assert_eq(({ [vm] = 1 })[provium.file], 1)
  local ok, e = pcall(vm.read_file, vm, "/x")
  t:assert(not ok)
  t:assert_eq(type(e), "string")
end)

test("L-010: provium is the test's scope, a kept root is the root", function(t)
  t:assert_neq(provium, root)
  t:assert_eq(provium:name(), "provium")
  provium:vm("mine", "minimal")
  t:assert_eq(root.mine, nil)
  t:assert_eq(provium.mine:state(), "created")
  t:assert_eq(provium.file, vm)
end)

test("L-020: what a test declared is gone in the next", function(t)
  t:assert_eq(provium.mine, nil)
  provium:vm("mine", "minimal")
end)

test("L-021..L-023: lookups, shadows and duplicates", function(t)
  local function raised(fn) return t:assert_raises(fn) end
  t:assert_contains(raised(function() provium:vm("nobody") end), "nobody")
  t:assert_contains(raised(function() provium:vm("file", "minimal") end), "already declared at parent scope")
  provium:vm("twice", "minimal")
  t:assert_contains(raised(function() provium:vm("twice", "minimal") end), "DuplicateVmName")
  t:assert_contains(raised(function() provium:vm("x", "nosuch") end), "minimal")
  t:assert_contains(raised(function() provium:vm("pack", "minimal") end), "pack")
  t:assert_contains(raised(function() provium:vm("a b", "minimal") end), "a b")
end)

test("L-014: settings", function(t)
  t:assert_contains(t:assert_raises(function() provium.nonsense = 1 end), "nonsense")
  provium.timeout = "100s"
  provium.timeout = nil
end)

test("L-025, L-026: sub-labs have names of their own", function(t)
  local sub = provium:lab("sub")
  t:assert_eq(provium:lab("sub"), sub)
  sub:vm("file", "minimal")
  t:assert_neq(sub.file, vm)
  t:assert_eq(sub.twice, nil)
  t:assert_eq(table.concat(provium:sub_lab_names(), ","), "sub")
  t:assert_eq(provium:lab():name():sub(1, 6), "__lab_")
end)

test("L-032..L-035: members", function(t)
  provium:vm("one", "minimal")
  provium:include(provium:lab("two"):vm("other", "minimal"))
  local seen = {}
  for _, m in ipairs(provium:members()) do seen[#seen + 1] = m.kind .. ":" .. m.name end
  t:assert_eq(table.concat(seen, " "), "vm:one sub_lab:two vm:other")
  provium:remove("one")
  t:assert_eq(provium.one, nil)
  t:assert_raises(function() provium:remove("one") end)
end)

test("L-065: a mistyped size", function(t)
  t:assert_contains(t:assert_raises(function() provium:vm("x", "minimal", { memory = 512 }) end), "512M")
  t:assert_contains(t:assert_raises(function() provium:vm("x", "minimal", { memory = "5X" }) end), "5X")
  t:assert_contains(t:assert_raises(function() provium:vm("x", "minimal", { cups = 1 }) end), "cups")
end)

test("L-039: one claim per file", function(t)
  provium:claim { memory = "1G", cpus = 1 }
  t:assert_contains(t:assert_raises(function() provium:claim {} end), "claim already taken")
end)

test("L-062, L-063: a reset makes handles stale", function(t)
  vm:boot()
  local f = vm:open_file("/tmp/x", { write = true, create = true })
  local p = vm:run_async("sleep 1000")
  vm:reset()
  t:assert_eq(vm:state(), "booted")
  t:assert_eq(vm:run("ls /tmp/x").exit_code, 1)
  t:assert_contains(t:assert_raises(function() f:write("y") end), "stale")
  f:close()
  t:assert_raises(function() p:status() end)
end)
