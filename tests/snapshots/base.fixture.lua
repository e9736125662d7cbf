-- A guest with something in memory, something running, and something open.
local vm = provium:vm("base", "minimal", {memory = "256M"}):boot()
vm:push_file("lib/payload.txt", "/tmp/payload")
vm:run("head -c 3000000 /dev/urandom > /tmp/blob; md5sum /tmp/blob > /tmp/blob.md5"):assert_ok()
vm:run([[(i=0; while :; do i=$((i+1)); echo $i > /tmp/count.new; mv /tmp/count.new /tmp/count; sleep 0.05; done) >/dev/null 2>&1 &]]):assert_ok()
vm:run("sleep 0.3"):assert_ok()
return vm:snapshot()
