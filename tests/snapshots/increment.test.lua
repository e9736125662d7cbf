-- Snapshots that hold only what changed since another one (L-079).
local vm = provium:vm("a", "minimal"):boot()
vm:run("dd if=/dev/urandom of=/tmp/bulk bs=1M count=8"):assert_ok()
local sum = vm:run("md5sum < /tmp/bulk").stdout
local dir = os.tmpname()
os.remove(dir)
assert(os.execute("mkdir " .. dir))
_G.cleanup = setmetatable({}, { __gc = function() os.execute("rm -rf " .. dir) end })
local base = vm:snapshot(dir .. "/base.snap")

local function step(text)
  vm:write_file("/tmp/step", text)
end

local function shows(t, vm, text)
  t:assert_eq(vm:read_file("/tmp/step"), text)
  t:assert_eq(vm:run("md5sum < /tmp/bulk").stdout, sum, "what only the base holds")
end

test("a snapshot without a path holds what changed", function(t)
  step("one")
  local one = vm:snapshot()
  t:assert(one:size() * 4 < base:size(), ("%d of %d bytes"):format(one:size(), base:size()))
  step("two")
  local two = vm:snapshot()
  -- The second needs the first for nothing.
  one:delete()
  step("three")
  vm:shutdown()
  vm:restore(two)
  shows(t, vm, "two")
end)

test("a lasting one does when its base is named, and goes on in another VM", function(t)
  vm:shutdown()
  vm:restore(base)
  step("kept")
  local kept = vm:snapshot(dir .. "/kept.snap", base)
  t:assert(kept:size() * 4 < base:size(), ("%d of %d bytes"):format(kept:size(), base:size()))
  local whole = vm:snapshot(dir .. "/whole.snap")
  t:assert(whole:size() > base:size() // 2, "the path alone makes a whole one")
  local other = provium:vm("other", "minimal")
  other:restore(dir .. "/kept.snap")
  shows(t, other, "kept")
  -- What is built on one that is built on the base is built on the base.
  other:write_file("/tmp/step", "further")
  other:snapshot(dir .. "/further.snap", dir .. "/kept.snap")
  os.remove(dir .. "/kept.snap")
  local third = provium:vm("third", "minimal")
  third:restore(dir .. "/further.snap")
  shows(t, third, "further")
  -- So a fork, which lies on the same base, is a small thing, too.
  shows(t, other:clone("fork"), "further")
end)

test("without its base it is refused, and a VM from elsewhere has none", function(t)
  vm:shutdown()
  vm:restore(base)
  vm:snapshot(dir .. "/lone.snap", base)
  assert(os.execute(("mkdir %s/alone && cp %s/lone.snap %s/alone/"):format(dir, dir, dir)))
  local other = provium:vm("apart", "minimal")
  local ok, err = pcall(other.restore, other, dir .. "/alone/lone.snap")
  t:assert(not ok)
  for _, part in ipairs { "alone/lone.snap", "holds only what changed since", "alone/base.snap", "opening it" } do
    t:assert(tostring(err):find(part, 1, true), ("%s: %s"):format(part, err))
  end
  -- Together they go anywhere.
  assert(os.execute(("cp %s/base.snap %s/alone/"):format(dir, dir)))
  other:restore(dir .. "/alone/lone.snap")
  local elsewhere = provium:vm("elsewhere", "minimal"):boot { cold = true }
  ok, err = pcall(elsewhere.snapshot, elsewhere, dir .. "/no.snap", base)
  t:assert(not ok and tostring(err):find("does not go on from", 1, true), tostring(err))
  t:assert(not io.open(dir .. "/no.snap"), "nothing is left")
  -- Nothing lasting builds on what is going to vanish: a temporary snapshot, or the state of a warm boot.
  local temporary = elsewhere:snapshot()
  ok, err = pcall(elsewhere.snapshot, elsewhere, dir .. "/no.snap", temporary)
  t:assert(not ok and tostring(err):find("ends with the file", 1, true), tostring(err))
  ok, err = pcall(vm.snapshot, vm, nil, 5)
  t:assert(not ok and tostring(err):find("base", 1, true), tostring(err))
end)

test("nothing lasting builds on an entry of the cache", function(t)
  provium:vm("first", "minimal"):boot():shutdown()
  local warm = provium:vm("warm", "minimal"):boot()
  local s = warm:snapshot()
  t:assert(s:size() * 2 < base:size(), "it builds on the state of the boot")
  local ok, err = pcall(warm.snapshot, warm, dir .. "/no.snap", s)
  t:assert(not ok and tostring(err):find("is an entry of the cache", 1, true), tostring(err))
  -- Without a path it may.
  warm:snapshot(nil, s)
end)
