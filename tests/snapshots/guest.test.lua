-- A guest that goes on from a snapshot is right: what it held, computed, waited for and was connected to
-- (L-079, L-080, L-250).
local vm = provium:vm("a", "minimal"):boot()

local function out(command)
  return vm:run(command):assert_ok().stdout
end

-- 100 MiB whose bytes no page shares with another.
out "dd if=/dev/urandom of=/tmp/seed bs=1M count=1 2>/dev/null"
out "for i in $(seq 100); do echo $i; cat /tmp/seed; done > /tmp/big"
local sum = out "md5sum < /tmp/big"
-- A process that counts.
vm:run("(i=0; while :; do i=$((i+1)); echo $i > /tmp/count; usleep 100000; done) >/dev/null 2>&1 &")
  :assert_ok()
-- Both ends of a TCP connection, in the agent.
out "ip link set lo up"
local SOCKET, CONNECT, ACCEPT, BIND, LISTEN, READ, WRITE = 41, 42, 43, 49, 50, 0, 1

--- A system call that must succeed; a string goes by address.
local function call(nr, ...)
  local call = { args = { ... }, bufs = {}, ptrs = {} }
  for i, argument in ipairs(call.args) do
    if type(argument) == "string" then
      call.args[i], call.bufs[#call.bufs + 1], call.ptrs[#call.ptrs + 1] = 0, argument, i - 1
    end
  end
  local r = vm:syscall(nr, call)
  assert(r.errno == 0, ("system call %d: error %d"):format(nr, r.errno))
  return r
end

local address = string.pack("<I2>I2>I4", 2, 4000, 0x7f000001) .. ("\0"):rep(8)
local server, client = call(SOCKET, 2, 1, 0).ret, call(SOCKET, 2, 1, 0).ret
call(BIND, server, address, 16)
call(LISTEN, server, 1)
call(CONNECT, client, address, 16)
local accepted = call(ACCEPT, server, 0, 0).ret

local function sent(from, to, text)
  call(WRITE, from, text, #text)
  local r = call(READ, to, ("\0"):rep(64), 64)
  return r.out_bufs[1]:sub(1, r.ret)
end
call(WRITE, client, "on its way", 10)
-- A timer that is due later.
out "(sleep 5; cut -d' ' -f1 /proc/uptime > /tmp/rang) >/dev/null 2>&1 &"

local function count()
  return tonumber((out "cat /tmp/count"))
end

local function check(t, what)
  t:assert_eq(out "md5sum < /tmp/big", sum, what .. ": what it held")
  local before = count()
  out "sleep 0.5"
  local after = count()
  t:assert(after > before and after < before + 50, ("%s: counted from %d to %d"):format(what, before, after))
  local r = call(READ, accepted, ("\0"):rep(64), 64)
  t:assert_eq(r.out_bufs[1]:sub(1, r.ret), "on its way", what .. ": what the socket held")
  t:assert_eq(sent(client, accepted, "there"), "there", what .. ": the connection")
  t:assert_eq(sent(accepted, client, "and back"), "and back", what .. ": the connection")
  out "sleep 6"
  t:assert(tonumber((out "cat /tmp/rang")), what .. ": the timer rang")
  local trouble = out "dmesg | grep -i -e warning -e stall -e lockup -e 'Call Trace' -e 'unstable' -e 'time went backwards'; true"
  t:assert_eq(trouble, "", what .. ": the kernel's log")
end

test("memory, processes, sockets and timers go on after a restore", { timeout = "250s" }, function(t)
  t:assert_eq(vm:run("test -e /tmp/rang").exit_code, 1)
  local s = vm:snapshot()
  local counted, up = count(), tonumber(vm:read_file("/proc/uptime"):match("^[%d.]+"))
  check(t, "the original")
  vm:shutdown()
  vm:restore(s)
  local now = tonumber(vm:read_file("/proc/uptime"):match("^[%d.]+"))
  t:assert(now >= up - 1 and now < up + 1, ("uptime %s then, %s now"):format(up, now))
  t:assert(count() < counted + 50, "it counts from where it was")
  t:assert_eq(vm:run("test -e /tmp/rang").exit_code, 1, "the timer has not rung yet")
  check(t, "restored")
  local twin = provium:vm("twin", "minimal")
  twin:restore(s)
  t:assert_eq(twin:run("md5sum < /tmp/big"):assert_ok().stdout, sum)
  twin:close()
end)
