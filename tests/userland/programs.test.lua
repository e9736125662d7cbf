-- Ordinary Debian programs in the guest: what they compute on the software processor is what any
-- other x86-64 computes.
local here = debug.getinfo(1, "S").source:match("^@(.*)/") or "."

local vm = provium:vm("debian", "userland")
vm:boot()

test("sha256sum agrees with openssl, and with the published vectors", function(t)
  t:assert_eq(vm:run("printf abc | sha256sum"):assert_ok().stdout,
    "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad  -\n")
  vm:run("head -c 4194304 /dev/urandom > /tmp/noise"):assert_ok()
  for _, name in ipairs { "md5", "sha1", "sha256", "sha512" } do
    local coreutils = vm:run(name .. "sum < /tmp/noise"):assert_ok().stdout:match("^%x+")
    local openssl = vm:run("openssl dgst -" .. name .. " -r < /tmp/noise"):assert_ok().stdout:match("^%x+")
    t:assert_eq(openssl, coreutils, name)
  end
end)

test("openssl: known answers, round trips, a signature", function(t)
  -- FIPS 197, appendix C.3: AES-256 of one block.
  t:assert_eq(vm:run("printf '00112233445566778899aabbccddeeff' | xxd -r -p"
      .. " | openssl enc -aes-256-ecb -nopad -K 000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f"
      .. " | xxd -p"):assert_ok().stdout, "8ea2b7ca516745bfeafc49904b496089\n")
  for _, cipher in ipairs { "aes-128-ctr", "aes-256-cbc", "camellia-256-cbc", "chacha20", "des-ede3-cbc" } do
    vm:run(("openssl enc -%s -pbkdf2 -pass pass:x -in /bin/busybox -out /tmp/enc"
      .. " && openssl enc -d -%s -pbkdf2 -pass pass:x -in /tmp/enc | cmp - /bin/busybox"):format(cipher, cipher)):assert_ok()
  end
  for _, key in ipairs { "ec -pkeyopt ec_paramgen_curve:P-256", "rsa -pkeyopt rsa_keygen_bits:1024" } do
    t:assert_contains(vm:run("cd /tmp && openssl genpkey -algorithm " .. key .. " -out k.pem 2>/dev/null"
        .. " && openssl pkey -in k.pem -pubout -out p.pem"
        .. " && openssl dgst -sha256 -sign k.pem -out s /etc/passwd"
        .. " && openssl dgst -sha256 -verify p.pem -signature s /etc/passwd", { timeout = "300s" }):assert_ok().stdout,
      "Verified OK")
  end
  -- It measures itself by the guest's own clock and must end when that says so.
  t:assert_contains(vm:run("openssl speed -seconds 1 -bytes 1024 sha256 2>&1"):assert_ok().stdout, "sha256")
end)

test("python3: a numeric script prints what the host's python3 prints", function(t)
  local version = io.popen("python3 -c 'import sys; print(sys.version_info[0])' 2>/dev/null")
  local found = version:read("a")
  version:close()
  if found ~= "3\n" then
    local why = "needs python3 on the host, to compare with"
    if (os.getenv("PROVIUM_REQUIRE") or ""):find("python3", 1, true) then t:fail(why) end
    t:skip(why)
  end
  local host = io.popen("python3 " .. here .. "/numeric.py")
  local expected = host:read("a")
  t:assert(host:close(), "the host's python3 failed")
  vm:push_file(here .. "/numeric.py", "/tmp/numeric.py")
  local guest = vm:run("python3 /tmp/numeric.py", { timeout = "300s" }):assert_ok().stdout
  t:assert(#expected > 2000, expected)
  t:assert_eq(guest, expected)
end)

test("python3: its own view of the processor and of threads", function(t)
  t:assert_eq(vm:run([[python3 - <<'PY'
import ctypes, multiprocessing, threading
total = [0]
lock = threading.Lock()
def work():
    for _ in range(1000):
        with lock:
            total[0] += 1
threads = [threading.Thread(target=work) for _ in range(8)]
[t.start() for t in threads]
[t.join() for t in threads]
with multiprocessing.Pool(3) as pool:
    squares = sum(pool.map(abs, range(-500, 500)))
libc = ctypes.CDLL(None)
print(total[0], squares, libc.getpid() > 1)
PY]], { timeout = "300s" }):assert_ok().stdout, "8000 250000 True\n")
end)

test("sqlite3: a small database", function(t)
  local sql = [[
    create table item(id integer primary key, name text, weight real);
    create index by_name on item(name);
    with recursive n(i) as (select 1 union all select i + 1 from n where i < 5000)
      insert into item select i, 'item' || (i * 7919 % 5000), i / 8.0 from n;
    begin; delete from item where id % 3 = 0; rollback;
    begin; delete from item where id % 5 = 0; commit;
    select count(*), sum(id), sum(weight), min(name), max(name) from item;
    select name, weight from item where name between 'item42' and 'item4203' order by name;
    vacuum;
    pragma integrity_check;
  ]]
  vm:write_file("/tmp/script.sql", sql)
  t:assert_eq(vm:run("sqlite3 /tmp/test.db < /tmp/script.sql", { timeout = "120s" }):assert_ok().stdout,
    "4000|10000000|1250000.0|item1|item999\n"
    .. "item42|314.75\nitem4201|559.875\nitem4202|269.75\nitem4203|604.625\n"
    .. "ok\n")
  t:assert_eq(vm:run("sqlite3 /tmp/test.db 'select count(*) from item'"):assert_ok().stdout, "4000\n")
end)
