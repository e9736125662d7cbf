-- The classic dialect on VMs and workers, as Lua over the same natives (classic-api sections
-- 2 to 6). What differs between the dialects is only how syscall and ioctl answer; which VM
-- speaks which is remembered here.
local P = ...

local type, tostring, setmetatable = type, tostring, setmetatable
local raise, def, methods = P.raise, P.def, P.methods
local unpack = table.unpack

-- VMs and workers that speak classic (C-001, C-004).
local classic = setmetatable({}, { __mode = "k" })
function P.make_classic(guest)
  classic[guest] = true
  return guest
end
function P.is_classic(guest) return classic[guest] == true end

-- The name of a guest in messages, "vm a" or "worker 3".
local function shown(guest)
  if P.handle_type(guest) == "VM" then return "vm " .. methods.VM.name(guest) end
  return "worker " .. methods.Worker.handle(guest)
end

-- Text wrappers (C-018) --------------------------------------------------------------------

local Text = {}

-- Fields callable with a dot or a colon: `r.stdout.trim()` and `r.stdout:trim()`.
local function text(value)
  local wrapper = { value = value }
  local function method(fn)
    return function(first, second)
      if rawequal(first, wrapper) then return fn(second) end
      return fn(first)
    end
  end
  local function needle(s, what)
    if P.is_text(s) then return s.value end
    if type(s) ~= "string" then
      raise(what .. ": argument 1 must be a string, got " .. P.kind(s))
    end
    return s
  end
  wrapper.contains = method(function(s)
    return value:find(needle(s, "contains"), 1, true) ~= nil
  end)
  wrapper.starts_with = method(function(s)
    s = needle(s, "starts_with")
    return value:sub(1, #s) == s
  end)
  wrapper.trim = method(function() return (value:match("^%s*(.-)%s*$")) end)
  return setmetatable(wrapper, Text)
end

function P.is_text(v) return getmetatable(v) == Text end

local function plain(v) return P.is_text(v) and v.value or tostring(v) end
Text.__name = "Text"
Text.__tostring = function(w) return w.value end
Text.__concat = function(a, b) return plain(a) .. plain(b) end
Text.__len = function(w) return #w.value end
Text.__eq = function(a, b) return a.value == b.value end

-- Registered on both kinds of guest ---------------------------------------------------------

local function on_guests(name, signature, doc, make)
  for _, class in ipairs { "VM", "Worker" } do
    local call = (class == "VM" and "vm:" or "worker:") .. name
    def(class, name, signature, doc, make(methods[class], call))
  end
end

-- 128 + N for a command ended by signal N.
local function exit_code(result)
  if result.signal then return 128 + result.signal end
  return result.exit_code
end

on_guests("exec", "(cmd: string): {ok, exit_code, stdout, stderr}",
  "Runs a shell command; stdout and stderr are texts with contains, starts_with and trim.",
  function(class, call)
    return function(guest, cmd)
      if type(cmd) ~= "string" then
        raise(call .. ": argument 1 (cmd) must be a string, got " .. P.kind(cmd))
      end
      local r = class.run(guest, cmd)
      local code = exit_code(r)
      return { ok = code == 0, exit_code = code, stdout = text(r.stdout), stderr = text(r.stderr) }
    end
  end)

on_guests("json", "(cmd: string): any",
  "Runs a shell command that must succeed and decodes its output.",
  function(class, call)
    return function(guest, cmd)
      local r = class.run(guest, cmd)
      if exit_code(r) ~= 0 then
        raise(call .. ": command `" .. cmd .. "` failed with exit code " .. exit_code(r)
          .. ": " .. r.stderr)
      end
      local decoded = table.pack(P.raw.json.decode(r.stdout))
      if decoded[1] then return decoded[2] end
      raise(call .. ": command `" .. cmd .. "`: " .. decoded[2] .. "; output begins "
        .. P.quote(r.stdout:sub(1, 200)))
    end
  end)

on_guests("dmesg", "(pattern?: string): string",
  "The kernel log; with a pattern (a POSIX basic regular expression) the lines that match.",
  function(_, call)
    return function(guest, pattern)
      local log = P.native._guest.dmesg(guest)
      if pattern == nil then return log end
      return P.native._host.grep(log, pattern, call)
    end
  end)

on_guests("wait_until", "(pred: fun(): any, opts?: {timeout?, interval?, desc?}): any",
  "Calls `pred` every `interval` (0.5 s) until it returns something truthy, and returns that.",
  function(_, call)
    return function(guest, pred, opts)
      return P.poll(call, pred, opts, 0.5, " (" .. shown(guest) .. ")")
    end
  end)

-- Raw calls (section 4) -----------------------------------------------------------------------

-- The classic answer of a call: the kernel's own value, then the buffers.
local function raw_values(result, last)
  return result.raw, unpack(result.out_bufs, 1, last or #result.out_bufs)
end

for _, class in ipairs { "VM", "Worker" } do
  local m = methods[class]
  local v2_syscall, v2_ioctl = m.syscall, m.ioctl
  P.native[class].syscall_v2 = v2_syscall

  m.syscall = function(guest, ...)
    local result = v2_syscall(guest, ...)
    if classic[guest] then return raw_values(result) end
    return result
  end

  m.ioctl = function(guest, fd, cmd, data, opts)
    if not classic[guest] then return v2_ioctl(guest, fd, cmd, data, opts) end
    return P.classic_ioctl(v2_ioctl, guest, fd, cmd, data, opts)
  end
end

-- Direction bits of an ioctl command: 1 = the kernel reads the data, 2 = it writes it.
local function direction(cmd) return (cmd >> 30) & 3, (cmd >> 16) & 0x3fff end

-- Result and buffer by the rules of C-031.
function P.classic_ioctl(v2_ioctl, guest, fd, cmd, data, opts)
  local number = math.tointeger(cmd)
  if not number then
    raise("vm:ioctl: argument 2 (cmd) must be an integer, got " .. P.kind(cmd))
  end
  local dir, size = direction(number)
  if type(data) == "string" and #data < size and dir ~= 0 then
    data = data .. ("\0"):rep(size - #data)
  end
  local result = v2_ioctl(guest, fd, cmd, data, opts)
  local out = result.out_data
  if dir == 1 then out = nil end
  return result.raw, out
end

-- Buffers by 0-based argument index, in ascending order: list of data and list of slots.
local function indexed(call, bufs)
  if type(bufs) ~= "table" then
    raise(call .. ": argument 2 (bufs) must be a table, got " .. P.kind(bufs))
  end
  local slots = {}
  for index, data in pairs(bufs) do
    if math.type(index) ~= "integer" or index < 0 or index > 5 then
      raise(call .. ": bufs: index " .. tostring(index) .. " is outside 0 to 5")
    end
    if type(data) ~= "string" then
      raise(call .. ": bufs[" .. index .. "] must be a string, got " .. P.kind(data))
    end
    slots[#slots + 1] = index
  end
  table.sort(slots)
  local list = {}
  for i, index in ipairs(slots) do list[i] = bufs[index] end
  return list, slots
end

on_guests("syscall_bufs", "(nr: integer, bufs: table<integer, string>, ...: integer): integer, ...: string",
  "A system call whose arguments `bufs` are addresses of buffers; returns the kernel's value "
  .. "and every buffer after the call.",
  function(class, call)
    local syscall = P.native[class == methods.VM and "VM" or "Worker"].syscall_v2
    return function(guest, nr, bufs, ...)
      local list, slots = indexed(call, bufs)
      return raw_values(syscall(guest, nr, { args = { ... }, bufs = list, ptrs = slots }))
    end
  end)

on_guests("syscall_buf", "(nr: integer, index: integer, data: string, ...: integer): integer",
  "A system call whose argument `index` is the address of a buffer; returns the kernel's value.",
  function(class)
    return function(guest, nr, index, data, ...)
      return (class.syscall_bufs(guest, nr, { [index] = data }, ...))
    end
  end)

-- Checks one pointer spec (C-028); returns its block, padded with zeros.
local function block(call, number, spec, size_key, holder)
  local function bad(field, problem)
    raise(call .. ": spec " .. number .. ": " .. field .. " " .. problem)
  end
  if type(spec) ~= "table" then bad("itself", "must be a table") end
  local data, length = spec.data, spec[size_key]
  if data == nil and length == nil then bad("data", "or " .. size_key .. " is needed") end
  data = data or ""
  if type(data) ~= "string" then bad("data", "must be a string") end
  length = length or #data
  if math.type(length) ~= "integer" or length < 0 then
    bad(size_key, "must be an integer of at least 0")
  end
  if #data > length then bad("data", "is longer than " .. size_key) end
  local offset = spec.ptr_offset
  if math.type(offset) ~= "integer" or offset < 0 then
    bad("ptr_offset", "must be an integer of at least 0")
  end
  if offset + 8 > #holder then bad("ptr_offset", "leaves no room for an address") end
  return data .. ("\0"):rep(length - #data)
end

on_guests("syscall_ptr",
  "(nr: integer, bufs: table<integer, string>, ptrs: table[], ...: integer): integer, ...: string",
  "As syscall_bufs, with further blocks whose addresses are stored inside the buffers.",
  function(class, call)
    local syscall = P.native[class == methods.VM and "VM" or "Worker"].syscall_v2
    return function(guest, nr, bufs, specs, ...)
      local list, slots = indexed(call, bufs)
      local place = {}
      for i, slot in ipairs(slots) do place[slot] = i end
      local nested, outputs = {}, {}
      for number, spec in ipairs(specs) do
        local parent = type(spec) == "table" and place[spec.buf_idx]
        if not parent then
          raise(call .. ": spec " .. number .. ": buf_idx is not in bufs")
        end
        list[#list + 1] = block(call, number, spec, "data_len", list[parent])
        nested[number] = { parent = parent, child = #list, offset = spec.ptr_offset }
        if spec.output then outputs[#outputs + 1] = #list end
      end
      local result = syscall(guest, nr,
        { args = { ... }, bufs = list, ptrs = slots, nested = nested })
      local values = {}
      for i = 1, #slots do values[i] = result.out_bufs[i] end
      for _, index in ipairs(outputs) do values[#values + 1] = result.out_bufs[index] end
      return result.raw, unpack(values)
    end
  end)

on_guests("ioctl_buf", "(fd: integer, cmd: integer, struct: string, specs: table[]): integer, string?, ...: string",
  "An ioctl on a structure that holds addresses of further blocks.",
  function(class, call)
    local ioctl = P.native[class == methods.VM and "VM" or "Worker"].ioctl
    return function(guest, fd, cmd, struct, specs)
      if type(struct) ~= "string" then
        raise(call .. ": argument 3 (struct) must be a string, got " .. P.kind(struct))
      end
      local blocks, offsets, outputs = {}, {}, {}
      for number, spec in ipairs(specs or {}) do
        blocks[number] = block(call, number, spec, "buf_len", struct)
        offsets[number] = spec.ptr_offset
        if spec.output then outputs[#outputs + 1] = number end
      end
      local result = ioctl(guest, fd, cmd, struct, { bufs = blocks, ptr_offsets = offsets })
      local values = {}
      for i, index in ipairs(outputs) do values[i] = result.out_bufs[index] end
      local after = result.out_data
      if direction(cmd) == 1 then after = nil end
      return result.raw, after, unpack(values)
    end
  end)

-- Background jobs (section 5) -------------------------------------------------------------------

-- Jobs of each guest by id.
local jobs = setmetatable({}, { __mode = "k" })

on_guests("background", "(cmd: string): {id: integer, pid: integer}",
  "Starts a shell command that runs beside the test.",
  function(class, call)
    return function(guest, cmd)
      if type(cmd) ~= "string" then
        raise(call .. ": argument 1 (cmd) must be a string, got " .. P.kind(cmd))
      end
      local process = class.run_async(guest, cmd)
      local id = process:handle()
      jobs[guest] = jobs[guest] or {}
      jobs[guest][id] = process
      return { id = id, pid = process:pid() }
    end
  end)

local function process_of(call, guest, job)
  local id = job
  if type(job) == "table" then id = job.id end
  local process = jobs[guest] and jobs[guest][id]
  if not process then
    raise(call .. ": " .. shown(guest) .. ": unknown job id `" .. tostring(id) .. "`")
  end
  return process
end

local function job_result(result, stdout, stderr)
  if not result then
    return { exit_code = -1, stdout = stdout, stderr = stderr, running = true }
  end
  return { exit_code = exit_code(result), stdout = result.stdout, stderr = result.stderr,
    running = false }
end

on_guests("job_wait", "(job, timeout?): {exit_code, stdout, stderr, running}",
  "The state of a job; with a timeout, waits for its end that long. Never kills it.",
  function(_, call)
    return function(guest, job, timeout)
      local process = process_of(call, guest, job)
      return job_result(P.native._process.job_wait(process, timeout))
    end
  end)

on_guests("job_kill", "(job): {exit_code, stdout, stderr, running}",
  "Kills a job's process group and returns its final result.",
  function(_, call)
    return function(guest, job)
      local process = process_of(call, guest, job)
      process:kill(9)
      return job_result(process:wait())
    end
  end)

-- Workers (section 6) -----------------------------------------------------------------------------

-- Workers made by spawn; kill() ends them, later calls say so, and again it does nothing.
local spawned = setmetatable({}, { __mode = "k" })

local VM, Worker = methods.VM, methods.Worker

def("VM", "spawn", "(opts?: {thread?: boolean}): Worker",
  "Forks the agent, or starts a thread of it; kill() on the result ends it.",
  function(vm, opts)
    local worker = VM.spawn_worker(vm, opts)
    spawned[worker] = true
    if classic[vm] then classic[worker] = true end
    return worker
  end)

local spawn_worker, kill_processes = VM.spawn_worker, Worker.kill
VM.spawn_worker = function(vm, opts)
  local worker = spawn_worker(vm, opts)
  if classic[vm] then classic[worker] = true end
  return worker
end
Worker.kill = function(worker, ...)
  if not spawned[worker] then return kill_processes(worker, ...) end
  P.native._worker.exit(worker)
end

for _, name in ipairs { "boot", "shutdown", "spawn" } do
  Worker[name] = function()
    raise("worker:" .. name .. ": a worker has no " .. name .. ", only its VM has")
  end
end

-- Classic VMs have a longer grace (C-015).
local shutdown = VM.shutdown
VM.shutdown = function(vm)
  if classic[vm] then return P.native._vm.classic_shutdown(vm) end
  return shutdown(vm)
end
