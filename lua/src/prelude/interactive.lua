-- What the prompt of `provium repl` needs: run a chunk, show its values.
local P = ...

local type, tostring, pairs = type, tostring, pairs

-- A value on one line; tables one level deep.
local function show(v, deep)
  if type(v) == "string" then return P.quote(v) end
  if type(v) ~= "table" or deep then return tostring(v) end
  local parts, count = {}, 0
  for i, item in ipairs(v) do parts[i], count = show(item, true), i end
  local named = {}
  for key, item in pairs(v) do
    if not (math.type(key) == "integer" and key >= 1 and key <= count) then
      local shown = type(key) == "string" and key:match("^[%a_][%w_]*$") or
        "[" .. show(key, true) .. "]"
      named[#named + 1] = shown .. " = " .. show(item, true)
    end
  end
  table.sort(named)
  for _, part in ipairs(named) do parts[#parts + 1] = part end
  return "{" .. table.concat(parts, ", ") .. "}"
end

-- Runs a chunk; answers true and its values as text (nil for none), or false and the message.
function P.evaluate(chunk)
  local results = table.pack(xpcall(chunk, P.catch))
  if not results[1] then
    return false, results[2].message or ("skipped: " .. tostring(results[2].skip))
  end
  if results.n == 1 then return true, nil end
  local parts = {}
  for i = 2, results.n do parts[i - 1] = show(results[i]) end
  return true, table.concat(parts, "\t")
end
