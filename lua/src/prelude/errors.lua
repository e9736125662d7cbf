-- Errors as the author of a test sees them: a message that starts with FILE:LINE of the
-- author's own frame (lua-api L-232, L-249), never a line of this prelude.
--
-- Author frames are those whose chunk name starts with "@"; prelude chunks are named
-- "=[provium]", and native functions "=[C]".
local P = ...

local getinfo, tostring, type, error = debug.getinfo, tostring, type, error

-- The nearest author frame at or above `level` (1 = the caller of this function).
-- Returns file and line, or nil when the stack holds none.
local function frame(level)
  level = level + 1
  while true do
    local info = getinfo(level, "Sl")
    if not info then return nil end
    if info.source:byte(1) == 64 and info.currentline > 0 then
      return info.source:sub(2), info.currentline
    end
    level = level + 1
  end
end

-- "FILE:LINE: " of the nearest author frame. A body that ends in a tail call leaves no
-- frame behind; then the running test's own definition stands in.
local function where()
  local file, line = frame(2)
  if not file and P.running then file, line = P.running.file, P.running.line end
  return file and (file .. ":" .. line .. ": ") or ""
end

-- Raises `message` as if the author's line had raised it.
local function raise(message)
  error(where() .. message, 0)
end

-- Lua shortens long chunk names in the messages it makes itself ("...ng/path.lua:3: ").
-- Puts the full name back, which the frames on the stack still know.
local function unshorten(message)
  if message:sub(1, 3) ~= "..." then return message end
  local level = 2
  while true do
    local info = getinfo(level, "S")
    if not info then return message end
    local short = info.short_src
    if info.source:byte(1) == 64 and message:sub(1, #short + 1) == short .. ":" then
      return info.source:sub(2) .. message:sub(#short + 1)
    end
    level = level + 1
  end
end

-- The author's frames from here up, one a line, for the failure block.
local function author_trace()
  local lines, level = {}, 2
  while #lines < 20 do
    local info = getinfo(level, "Sln")
    if not info then break end
    if info.source:byte(1) == 64 and info.currentline > 0 then
      local name = info.name and (" in " .. info.name) or ""
      lines[#lines + 1] = info.source:sub(2) .. ":" .. info.currentline .. name
    end
    level = level + 1
  end
  return lines
end

-- An error value that says "this test is skipped"; it is not a failure anywhere.
local Skip = {}
Skip.__name = "provium.skip"
Skip.__tostring = function(s) return "skipped: " .. s.reason end

local function is_skip(value)
  return getmetatable(value) == Skip
end

-- Message handler of every protected author call: turns whatever was raised into a record
-- {message=, file=, line=, trace=, skip=}. Runs before the stack unwinds.
local function catch(value)
  if is_skip(value) then return { skip = value.reason } end
  local record = { trace = author_trace() }
  local file, line = frame(2)
  if not file and P.running then file, line = P.running.file, P.running.line end
  record.file, record.line = file, line
  local text
  if type(value) == "string" then
    text = unshorten(value)
  else
    local ok, shown = pcall(tostring, value)
    text = ok and shown or ("error object of type " .. type(value))
  end
  -- A position that the message already carries is the truer one.
  local said, at = text:match("^([^\n]-):(%d+): ")
  if said and (P.sources[said] or said == file) then
    record.file, record.line = said, tonumber(at)
  elseif file then
    text = file .. ":" .. line .. ": " .. text
  end
  record.message = text
  return record
end

-- Names of the chunks of this run, by which a message's position is recognised.
P.sources = {}

P.frame, P.where, P.raise, P.catch = frame, where, raise, catch
P.is_skip = is_skip
P.skip = function(reason) error(setmetatable({ reason = reason }, Skip), 0) end
