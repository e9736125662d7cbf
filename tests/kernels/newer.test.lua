-- A newer long-term kernel.
require("stock").tests("newer", "^6%.12%.[%w.+-]+%-cloud%-amd64\n$")
