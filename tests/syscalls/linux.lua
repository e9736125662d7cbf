-- System calls by name, for tests that talk to the kernel itself.
--
--   local linux = require "linux"
--   local k = linux.on(vm)
--   local fd = k.openat(linux.AT_FDCWD, "/etc/passwd", 0, 0)      -- raises if the call fails
--   local n, text = k.read(fd, linux.out(64), 64)                 -- what the kernel wrote
--   linux.fails("EBADF", k.try.close(9999))                       -- exactly this error
--
-- An argument is an integer, a string (passed by address, with a NUL behind it), `linux.out(n)`
-- (n zero bytes that the kernel fills and the call returns), `linux.inout(bytes)`, or
-- `linux.struct(bytes, {[offset] = argument, ...})`: a block that holds addresses of others.
local numbers = require "numbers"

local linux = {
  nr = numbers.nr, errno = numbers.errno, error_name = numbers.error_name,
  AT_FDCWD = -100, AT_SYMLINK_NOFOLLOW = 0x100, AT_REMOVEDIR = 0x200, AT_EMPTY_PATH = 0x1000,
  O_RDONLY = 0, O_WRONLY = 1, O_RDWR = 2, O_CREAT = 64, O_EXCL = 128, O_TRUNC = 512,
  O_APPEND = 1024, O_NONBLOCK = 2048, O_DIRECTORY = 65536, O_NOFOLLOW = 131072,
  O_CLOEXEC = 524288, O_TMPFILE = 4259840, O_PATH = 2097152,
}

local Block = {}
Block.__index = Block

local function block(bytes, returned, inside)
  return setmetatable({ bytes = bytes, returned = returned, inside = inside or {} }, Block)
end

-- `n` zero bytes for the kernel to write to.
function linux.out(n) return block(("\0"):rep(n), true) end

-- Bytes that the kernel reads and changes.
function linux.inout(bytes) return block(bytes, true) end

-- A structure with addresses of other blocks inside; it comes back changed when `returned`.
function linux.struct(bytes, inside, returned) return block(bytes, returned, inside) end

-- An array of struct iovec over strings and blocks; with it, its length.
function linux.iov(list)
  local bytes, inside = {}, {}
  for i, part in ipairs(list) do
    local size = type(part) == "string" and #part or #part.bytes
    bytes[i] = string.pack("<I8I8", 0, size)
    inside[(i - 1) * 16] = part
  end
  return linux.struct(table.concat(bytes), inside), #list
end

-- The name of an error number.
function linux.name_of(errno) return linux.error_name[errno] or ("errno " .. errno) end

-- What `guest:syscall` wants, from named arguments.
local function lay_out(arguments)
  local call = { args = {}, bufs = {}, ptrs = {}, nested = {} }
  local returned, inner = {}, {}
  -- Buffers with a slot come first, because `ptrs` runs along with `bufs`.
  local function add(argument)
    local b = type(argument) == "string" and block(argument .. "\0") or argument
    call.bufs[#call.bufs + 1] = b.bytes
    local index = #call.bufs
    if b.returned then returned[#returned + 1] = index end
    local offsets = {}
    for offset in pairs(b.inside) do offsets[#offsets + 1] = offset end
    table.sort(offsets)
    for _, offset in ipairs(offsets) do
      inner[#inner + 1] = { parent = index, offset = offset, argument = b.inside[offset] }
    end
    return index
  end
  for i = 1, arguments.n do
    local argument = arguments[i]
    if type(argument) == "number" then
      call.args[i] = argument
    else
      call.args[i] = 0
      call.ptrs[#call.ptrs + 1] = i - 1
      add(argument)
    end
  end
  local at = 1
  while inner[at] do
    local link = inner[at]
    call.nested[at] = { parent = link.parent, offset = link.offset, child = add(link.argument) }
    at = at + 1
  end
  return call, returned
end

local function number_of(name)
  return linux.nr[name] or error("no system call is named " .. tostring(name), 3)
end

-- Calls on a VM or worker: `k.NAME(...)` must succeed and returns the value and what the kernel
-- wrote, in the order of the arguments and outer blocks before those they point to;
-- `k.try.NAME(...)` returns the result table, with the written blocks as `out`;
-- `k.start.NAME(...)` begins a call that may block and returns a handle.
function linux.on(guest)
  local function try(name, ...)
    local call, returned = lay_out(table.pack(...))
    local result = guest:syscall(number_of(name), call)
    result.out, result.name = {}, name
    for i, index in ipairs(returned) do result.out[i] = result.out_bufs[index] end
    return result
  end
  local function must(name, ...)
    local result = try(name, ...)
    if result.errno ~= 0 then
      error(name .. ": " .. linux.name_of(result.errno), 3)
    end
    return result.ret, table.unpack(result.out)
  end
  local function by_name(fn)
    return setmetatable({}, { __index = function(_, name)
      return function(...)
        local values = table.pack(fn(name, ...))
        return table.unpack(values, 1, values.n)
      end
    end })
  end
  local k = by_name(must)
  rawset(k, "try", by_name(try))
  rawset(k, "start", by_name(function(name, ...)
    return guest:syscall_async(number_of(name), (lay_out(table.pack(...))))
  end))
  rawset(k, "guest", guest)
  return k
end

-- Raises unless a result of `k.try` is exactly the error `wanted`.
function linux.fails(wanted, result)
  local code = linux.errno[wanted] or error("no error is named " .. tostring(wanted), 2)
  if result.errno ~= code then
    local got = result.errno == 0 and ("it returned " .. result.ret)
      or ("it failed with " .. linux.name_of(result.errno))
    error(result.name .. ": expected " .. wanted .. ", but " .. got, 2)
  end
  if result.ret ~= -1 or result.raw ~= -code then
    error(result.name .. ": failed with ret " .. result.ret .. ", raw " .. result.raw, 2)
  end
end

-- Two descriptors written by pipe, pipe2 or socketpair.
function linux.pair(bytes) return string.unpack("<i4i4", bytes) end

-- struct timespec of a number of seconds.
function linux.timespec(seconds)
  local whole = math.floor(seconds)
  return string.pack("<i8i8", whole, math.floor((seconds - whole) * 1e9 + 0.5))
end

-- A signal set of these numbers.
function linux.sigset(...)
  local set = 0
  for _, signal in ipairs { ... } do set = set | (1 << (signal - 1)) end
  return string.pack("<I8", set)
end

return linux
