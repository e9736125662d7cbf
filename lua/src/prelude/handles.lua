-- Gives handles their methods, and what of them is plain Lua.
local P, N = ...

local getmetatable, type = debug.getmetatable, type
local raise, def, methods = P.raise, P.def, P.methods
local class_of = P.raw._host.class_of

-- All handles share one metatable; methods go by class. `lab.NAME` also finds members.
local mt = getmetatable(P.native._host.root())
mt.__index = function(handle, key)
  local _, class = class_of(handle)
  local method = methods[class][key]
  if method ~= nil then return method end
  if class == "Lab" then return P.lab_member(handle, key) end
end

-- Only the labs that `provium` names have settings (L-011, L-013, L-014).
local set_timeout = P.native._host.timeout
local set_reset = P.native._host.reset_between_tests
mt.__newindex = function(handle, key, value)
  local _, class = class_of(handle)
  if class == "Lab" and key == "timeout" then
    return set_timeout(value)
  end
  if class == "Lab" and key == "reset_between_tests" then
    if P.running then raise("provium.reset_between_tests: set it at file level") end
    return set_reset(value)
  end
  local name = class == "Lab" and "provium" or tostring(handle)
  raise(name .. ": cannot set `" .. tostring(key) .. "` (settable: timeout and reset_between_tests on provium)")
end
mt.__name = nil

-- RunResult (L-091..L-095): a plain table with two methods.
local RunResult = { __name = "RunResult" }
RunResult.__index = RunResult
P.native._host.set_result_class(RunResult)

RunResult.ok = def("RunResult", "ok", "(): boolean", "True when the exit code is 0.",
  function(r) return r.exit_code == 0 end)

local function tail(s) return #s > 4096 and "..." .. s:sub(-4096) or s end

RunResult.assert_ok = def("RunResult", "assert_ok", "(): RunResult",
  "Returns the result itself; raises with everything known about it unless the exit code is 0.",
  function(r)
    if r.exit_code == 0 then return r end
    local signal = r.signal
      and (", signal " .. r.signal .. " (" .. (r.signal_name or "unknown") .. ")") or ""
    raise("command failed: `" .. r.command .. "`: status " .. r.status .. ", exit code "
      .. r.exit_code .. signal .. "\nstdout: " .. tail(r.stdout) .. "\nstderr: " .. tail(r.stderr))
  end)

-- vm:batch queues through `b`, then sends (L-115).
local Batch = {}
Batch.__index = Batch
for name, read in pairs(P.native._batch) do
  Batch[name] = function(b, ...)
    b[#b + 1] = read(...)
  end
end

for _, class in ipairs { "VM", "Worker" } do
  local send = methods[class].batch
  local call = (class == "VM" and "vm" or "worker") .. ":batch"
  methods[class].batch = function(guest, fn)
    if type(fn) ~= "function" then
      raise(call .. ": argument 1 (fn) must be a function, got " .. P.kind(fn))
    end
    local b = setmetatable({}, Batch)
    fn(b)
    return send(guest, setmetatable(b, nil))
  end
end

-- Labs ------------------------------------------------------------------------------------------

-- The lab that `provium` means now (L-010): the file's root, or the running test's scope.
P.lab = P.native._host.root()

function P.set_scope(lab)
  P.lab = lab
  provium = lab
end

-- `lab.NAME`: a VM, else a sub-lab, here or in a parent scope; never raises (L-016).
local member = P.raw._lab.member
function P.lab_member(lab, key)
  if type(key) ~= "string" then return nil end
  local ok, found = member(lab, key)
  return ok and found or nil
end

-- Calls that work with a dot or a colon: a first argument that is a Lab is self (L-017).
local function reserved(name, signature, doc, fn)
  def("Lab", name, signature, doc, function(first, ...)
    local _, class = class_of(first)
    if class == "Lab" then return fn(first, ...) end
    return fn(P.lab, first, ...)
  end)
end

reserved("pack", "(fmt: string, ...): string",
  "Packs values by typed tokens (`u8 i8 ... u64 i64`, little endian), or as string.pack.",
  function(_, ...) return P.pack(...) end)
reserved("unpack", "(fmt: string, data: string): ...",
  "Unpacks values by typed tokens, or as string.unpack.",
  function(_, ...) return P.unpack(...) end)
reserved("create", "(profile: string): VM",
  "Declares a VM with a generated name that speaks the classic dialect.",
  function(lab, profile)
    P.last_classic = P.make_classic(P.native._lab.create(lab, profile))
    return P.last_classic
  end)
reserved("fixture", "(name: string): VM",
  "A VM that goes on from the classic fixture `fixtures/NAME.lua`, built on first use.",
  function(_, name)
    P.last_classic = P.make_classic(P.native._fixture.classic(name))
    return P.last_classic
  end)
reserved("vm_fixture", "(path: string): VM",
  "A booted VM from the fixture `PATH.fixture.lua`, built on first use and then cached.",
  function(_, path) return P.native._fixture.vm(path) end)
reserved("lab_fixture", "(path: string): Lab",
  "A running lab from the fixture `PATH.fixture.lua`, built on first use and then cached.",
  function(_, path) return P.native._fixture.lab(path) end)
reserved("shutdown_all", "()", "Shuts down every VM made so far.",
  function(lab)
    for _, vm in ipairs(P.native._lab.vms(lab)) do
      if vm:state() ~= "shutdown" then vm:shutdown() end
    end
  end)
