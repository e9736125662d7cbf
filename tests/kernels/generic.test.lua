-- Debian's kernel for any PC.
require("stock").tests("generic", "^6%.1%.[%d.-]+%-amd64\n$")
