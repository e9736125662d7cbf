-- Puts the names an author finds in every file in place (lua-api L-001, L-002).
local P, N = ...

for name, fn in pairs(P.methods[""]) do _G[name] = fn end
for _, library in ipairs { "json", "co" } do
  _G[library] = P.methods[library]
end
provium = P.lab

local raise, tostring, select = P.raise, tostring, select

os.exit = function()
  raise("os.exit is not available in a test file; return, or fail the test instead")
end

-- print goes where the runner says: stdout, or stderr while stdout carries data.
print = function(...)
  local parts = {}
  for i = 1, select("#", ...) do parts[i] = tostring((select(i, ...))) end
  P.native._host.print(table.concat(parts, "\t") .. "\n")
end
if N.stdout_is_data then io.output(io.stderr) end

-- `require` looks in the roots and beside the file; what it loads is an author's file, so
-- its chunk carries the display path.
package.path = N.package_path
package.cpath = ""
package.searchers[2] = function(module)
  local path, tried = package.searchpath(module, package.path)
  if not path then return tried end
  local shown = P.native._host.display_path(path)
  local file = assert(io.open(path, "rb"))
  local source = file:read("a")
  file:close()
  P.sources[shown] = source
  local chunk, why = load(source, "@" .. shown)
  if not chunk then error("error loading module '" .. module .. "': " .. why, 0) end
  return chunk, path
end
