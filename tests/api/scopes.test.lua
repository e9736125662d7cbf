-- The `provium` global, scopes and labs (lua-api sections 2 to 4).

local root = provium
local shared = provium:vm("shared", "minimal", { memory = "128M" })
local kept = provium:lab("kept")

local function raised(t, fn, ...)
  local args = table.pack(...)
  return tostring(t:assert_raises(function() fn(table.unpack(args, 1, args.n)) end))
end

local function contains_all(t, text, ...)
  for _, part in ipairs { ... } do t:assert_contains(text, part) end
end

local function kinds(lab)
  local seen = {}
  for _, m in ipairs(lab:members()) do seen[#seen + 1] = m.kind .. ":" .. m.name end
  return table.concat(seen, " ")
end

test("L-010, L-016: provium is the test's scope; a kept root stays the root", function(t)
  t:assert_neq(provium, root)
  t:assert_eq(provium:name() .. root:name(), "proviumprovium")
  t:assert_eq(provium.shared, shared)
  t:assert_eq(root.shared, shared)
  provium:vm("mine", "minimal")
  t:assert_eq(root.mine, nil)
  t:assert_eq(provium.nothing, nil)
  t:assert_eq(type(provium.boot), "function", "a method comes before a member")
end)

test("L-013, L-014: settings", function(t)
  for _, key in ipairs { "nonsense", "vm", "boot" } do
    t:assert_contains(raised(t, function() provium[key] = 1 end), key)
  end
  t:assert_contains(raised(t, function() provium.timeout = "soon" end), "soon")
  t:assert_contains(raised(t, function() shared.state = 1 end), "state")
end)

test("L-015: reserved keys name nothing", function(t)
  for _, key in ipairs { "pack", "unpack", "vm_fixture", "lab_fixture", "create", "fixture",
    "shutdown_all", "timeout", "reset_between_tests" } do
    t:assert_contains(raised(t, provium.vm, provium, key, "minimal"), key)
    t:assert_contains(raised(t, provium.lab, provium, key), key)
  end
end)

test("L-017, L-018: pack and unpack, with dot or colon", function(t)
  t:assert_eq(provium.pack("u16 u8", 258, 3), provium:pack("u16 u8", 258, 3))
  t:assert_eq(root.pack("u8", 7), "\7")
  t:assert_eq(provium.pack(">I2", 258), "\1\2")
  t:assert_eq(provium.pack("z", "text"), "text\0")
  local value, next_at = provium.unpack("<I2", "\2\1rest")
  t:assert_eq(value .. " " .. next_at, "258 3")
  t:assert_eq(select("#", provium.unpack("i8", "\xff")), 1, "the classic reading of i8")
  t:assert_eq((provium.unpack("i8", "\xff")), -1)
  t:assert_eq((provium.unpack("<i8", ("\xff"):rep(8))), -1)
end)

test("L-020: what a test declares", function()
  provium:vm("again", "minimal")
  provium:lab("again")
end)

test("L-020: is gone in the next", function(t)
  t:assert_eq(provium.again, nil)
  provium:vm("again", "minimal")
end)

test("L-020, L-228: its VMs are stopped with it, the file's live on", function(t)
  shared:boot()
  _G.left_over = provium:vm("left", "minimal", { memory = "64M" }):boot()
  t:assert_eq(_G.left_over:state(), "booted")
end)

test("L-020: and are found so", function(t)
  t:assert_eq(_G.left_over:state(), "shutdown")
  t:assert_eq(shared:state(), "booted")
  t:assert_eq(shared:run("echo on").stdout, "on\n")
end)

test("L-021, L-022, L-023: lookup, shadow, duplicate", function(t)
  t:assert_eq(provium:vm("shared"), shared)
  contains_all(t, raised(t, provium.vm, provium, "nobody"), "nobody", "provium")
  contains_all(t, raised(t, provium.vm, provium, "shared", "minimal"), "shared", "provium",
    "already declared at parent scope", 'provium:vm("shared")')
  contains_all(t, raised(t, provium.lab, provium, "kept"), "kept", "already declared at parent scope")
  provium:vm("twice", "minimal")
  contains_all(t, raised(t, provium.vm, provium, "twice", "minimal"), "DuplicateVmName", "twice", "provium")
  contains_all(t, raised(t, provium.include, provium, provium:lab("x"):vm("twice", "minimal")),
    "DuplicateVmName", "twice")
end)

test("L-025, L-026: sub-labs are worlds of their own", function(t)
  local sub = provium:lab("sub")
  t:assert_eq(provium:lab("sub"), sub)
  t:assert_eq(provium.sub, sub)
  t:assert_eq(sub.shared, nil)
  local inner = sub:vm("shared", "minimal")
  t:assert_neq(inner, shared)
  t:assert_eq(sub:vm("shared"), inner)
  contains_all(t, raised(t, sub.vm, sub, "twice"), "twice", "sub")
  local a, b = provium:lab(), provium:lab()
  t:assert(a:name():match("^__lab_%d+$") and b:name():match("^__lab_%d+$"))
  t:assert_neq(a:name(), b:name())
end)

test("L-027: what does not walk to the parent", function(t)
  t:assert_eq(#provium:vm_names() + #provium:sub_lab_names() + #provium:members(), 0)
  t:assert_eq(table.concat(root:vm_names(), " "), "shared")
  -- With no VM of its own a scope boots and shuts down nothing, and the file's VM stays up.
  provium:boot()
  provium:pause()
  provium:resume()
  provium:shutdown()
  t:assert_eq(shared:state(), "booted")
  -- Barriers are the lab's own: the same name elsewhere is another barrier.
  local other = co.spawn(function() return pcall(root.barrier, root, "gate", 2, "200ms") end)
  contains_all(t, raised(t, provium.barrier, provium, "gate", 2, "50ms"), "gate", "1", "2")
  local ok, why = other:join()
  t:assert(not ok)
  t:assert_contains(why, "gate")
end)

test("L-029: include into a longer-lived lab keeps a VM alive", function(t)
  local vm = provium:vm("carried", "minimal", { memory = "64M" }):boot()
  root:include(vm)
  t:assert_eq(root.carried, vm)
end)

test("L-029: it is alive in the next test", function(t)
  local vm = root.carried
  t:assert_eq(vm:state(), "booted")
  t:assert_eq(vm:run("echo alive").stdout, "alive\n")
  root:remove("carried")
  vm:close()
end)

test("L-030: names and profiles", function(t)
  for _, name in ipairs { "a b", "", "-x", "_x", "ü", ("n"):rep(64), "a/b", "x.y" } do
    t:assert_contains(raised(t, provium.vm, provium, name, "minimal"), "vm")
  end
  provium:vm(("n"):rep(63), "minimal")
  contains_all(t, raised(t, provium.vm, provium, "x", "minimall"), "minimall", "minimal")
  contains_all(t, raised(t, provium.vm, provium, 5, "minimal"), "lab:vm", "argument 1")
  provium:vm("both", "minimal")
  provium:lab("both")
  t:assert_eq(kinds(provium), "vm:" .. ("n"):rep(63) .. " vm:both sub_lab:both")
  t:assert(tostring(provium.both):match("^VM"), "a VM is found before a sub-lab")
end)

test("L-032..L-035: include, remove, members", function(t)
  local far = provium:lab("far")
  local one, two = far:vm("one", "minimal"), far:vm("two", "minimal")
  provium:vm("zero", "minimal")
  provium:include { one, two }
  t:assert_eq(kinds(provium), "sub_lab:far vm:zero vm:one vm:two")
  t:assert_eq(table.concat(provium:vm_names(), " "), "zero one two")
  t:assert_eq(table.concat(provium:sub_lab_names(), " "), "far")
  -- All or nothing: three is not included because zero cannot be.
  local more = provium:lab("more")
  local three, zero = more:vm("three", "minimal"), more:vm("zero", "minimal")
  contains_all(t, raised(t, provium.include, provium, { three, zero }), "zero")
  t:assert_eq(provium.three, nil)
  contains_all(t, raised(t, provium.include, provium, more:vm("shared", "minimal")), "shared", "parent scope")
  t:assert_contains(raised(t, provium.include, provium, 7), "lab:include")
  provium:remove("one")
  provium:remove(two)
  t:assert_eq(table.concat(provium:vm_names(), " "), "zero")
  t:assert_contains(raised(t, provium.remove, provium, "one"), "one")
  t:assert_eq(far:vm("one"), one)
end)

test("L-036, L-037, L-038: boot, pause, resume, shutdown of all at once", function(t)
  local a, b = provium:vm("a", "minimal", { memory = "64M" }), provium:vm("b", "minimal", { memory = "64M" })
  local inner = provium:lab("inner"):vm("c", "minimal", { memory = "64M" })
  a:boot()
  t:assert_eq(provium:boot(), provium)
  t:assert_eq(a:state() .. b:state() .. inner:state(), "bootedbootedcreated")
  provium:boot { recursive = true }
  t:assert_eq(inner:state(), "booted")
  a:pause()
  contains_all(t, raised(t, provium.pause, provium), "vm a", "paused")
  t:assert_eq(b:state(), "booted", "nothing has changed")
  a:resume()
  provium:pause()
  t:assert_eq(a:state() .. b:state() .. inner:state(), "pausedpausedbooted")
  provium:resume()
  provium:shutdown()
  t:assert_eq(a:state() .. b:state() .. inner:state(), "shutdownshutdownbooted")
  t:assert_contains(raised(t, provium.boot, provium, { recursiv = true }), "recursiv")
end)

test("L-036: a failed boot names every VM that failed", function(t)
  for _, name in ipairs { "bad1", "bad2" } do
    provium:vm(name, "minimal", { memory = "64M", files = { ["/x"] = "/no/such/host/file" } })
  end
  contains_all(t, raised(t, provium.boot, provium), "bad1", "bad2", "/no/such/host/file")
end)

test("L-039: claims", function(t)
  contains_all(t, raised(t, provium.claim, provium, { cpus = "many" }), "cpus")
  contains_all(t, raised(t, provium.claim, provium, { memry = "1M" }), "memry")
  provium:claim { memory = "2G" }
  t:assert_contains(raised(t, provium.claim, provium, { cpus = 1 }), "claim already taken")
end)

test("L-040: barriers", function(t)
  local got = {}
  local tasks = {}
  for round = 1, 2 do
    for i = 1, 3 do
      tasks[i] = co.spawn(function()
        local passed = provium:barrier("round", 4)
        got[#got + 1] = passed
      end)
    end
    t:assert_eq(#got, (round - 1) * 3)
    t:assert_eq(provium:barrier("round", 4), true)
    for i = 1, 3 do tasks[i]:join() end
    t:assert_eq(#got, round * 3, "a new round starts")
  end
  t:assert_eq(provium:barrier("one", 1), true)
  contains_all(t, raised(t, provium.barrier, provium, "none", 0), "count", "0")
  contains_all(t, raised(t, provium.barrier, provium, "late", 3, "50ms"), "late", "1", "3")
  local waiting = co.spawn(function() return pcall(provium.barrier, provium, "fixed", 2, "2s") end)
  contains_all(t, raised(t, provium.barrier, provium, "fixed", 5), "fixed", "2", "5")
  provium:barrier("fixed", 2)
  t:assert_eq(waiting:join(), true)
end)

test("L-045, L-046: depends_on_file and name", function(t)
  t:assert_eq(provium:depends_on_file("nothing/of/this/name"), nil)
  t:assert_eq(provium:lab("named"):name(), "named")
  t:assert_contains(raised(t, provium.depends_on_file, provium, 7), "depends_on_file")
end)

test("L-019, C-009: create and shutdown_all are there in every file", function(t)
  local classic = provium.create("minimal")
  classic:boot { memory = "64M" }
  local other = provium:vm("v2", "minimal", { memory = "64M" }):boot()
  provium.shutdown_all()
  t:assert_eq(classic:state() .. other:state(), "shutdownshutdown")
  t:assert_eq(shared:state(), "booted", "the scope's VMs, not the file's")
  provium.shutdown_all()
end)
