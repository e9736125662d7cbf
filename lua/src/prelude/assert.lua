-- Global assertions: `assert`, `assert_eq`, `assert_contains` (lua-api L-218,
-- classic-api C-045..C-047).
local P = ...

local type, tostring, error, select = type, tostring, error, select
local raise, show_quoted = P.raise, P.show_quoted

-- The text of the line that called assert, for its default message.
local function source_line(file, line)
  local source = P.sources[file]
  if type(source) ~= "string" then return nil end
  local at = 0
  for text in (source .. "\n"):gmatch("(.-)\r?\n") do
    at = at + 1
    if at == line then return text:match("^%s*(.-)%s*$") end
  end
end

P.def("", "assert", "(v, message?, ...): ...",
  "Returns all its arguments when `v` is truthy; otherwise raises `message`, which may be any "
  .. "value, or a message that shows the value and the source line.",
  function(...)
    local v, message = ...
    if v then return ... end
    if select("#", ...) == 0 then
      raise("bad argument #1 to 'assert' (value expected)")
    end
    -- Lua's contract: a given message is raised unchanged, whatever its type.
    if message ~= nil then error(message, 0) end
    local file, line = P.frame(1)
    local text = "assertion failed! (value: " .. tostring(v) .. ")"
    local code = file and source_line(file, line)
    if code then text = text .. " in: " .. code end
    -- The promised beginning is "assertion failed!"; the position follows.
    if file then text = text .. " at " .. file .. ":" .. line end
    error(text, 0)
  end)

-- A classic stdout wrapper counts as its value.
local function plain(v)
  if P.is_text and P.is_text(v) then return v.value end
  return v
end

P.def("", "assert_eq", "(expected, actual, message?)",
  "Raises unless `expected == actual`; shows both.",
  function(expected, actual, message)
    expected, actual = plain(expected), plain(actual)
    if expected == actual then return end
    local prefix = message ~= nil and (tostring(message) .. ": ") or ""
    P.note_values(expected, actual)
    raise(prefix .. "expected " .. show_quoted(expected) .. ", got " .. show_quoted(actual))
  end)

P.def("", "assert_contains", "(haystack: string, needle: string, message?)",
  "Raises unless `needle` is a plain substring of `haystack`.",
  function(haystack, needle, message)
    haystack, needle = plain(haystack), plain(needle)
    if type(haystack) ~= "string" or type(needle) ~= "string" then
      raise("assert_contains: haystack and needle must be strings, got "
        .. P.kind(haystack) .. " and " .. P.kind(needle))
    end
    if haystack:find(needle, 1, true) then return end
    local prefix = message ~= nil and (tostring(message) .. ": ") or ""
    raise(prefix .. show_quoted(needle) .. " not found in " .. show_quoted(haystack))
  end)
