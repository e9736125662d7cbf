-- Waiting for guests, and tasks that wait side by side (lua-api L-009).
--
-- A native that takes guest time only starts its operation; `await` is where the author's code
-- waits. In a task, waiting suspends the task's coroutine; in the main body it lets the guests
-- run and resumes whichever task has something to go on with. All of it is one thread.
local P = ...

local running, yieldable = coroutine.running, coroutine.isyieldable
local create, resume, yield, status = coroutine.create, coroutine.resume, coroutine.yield,
  coroutine.status
local unpack, pack = table.unpack, table.pack
local raise = P.raise

local N = P.native._task
local wait_any, give_up, timer = P.raw._task.wait_any, N.give_up, P.raw._task.timer

-- Unfinished tasks in start order, and the task of each coroutine.
local tasks, by_thread = {}, setmetatable({}, { __mode = "k" })

local Task = {}
Task.__index = Task
Task.__name = "Task"

local function forget(task)
  for i, other in ipairs(tasks) do
    if other == task then return table.remove(tasks, i) end
  end
end

-- Ends a task: keeps its results or its error.
local function finish_task(task, ok, ...)
  task.ok, task.results, task.waits_for = ok, pack(...), nil
  forget(task)
end

-- Takes the task's coroutine to its next wait, or its end.
local function advance(task, ...)
  local step = pack(resume(task.thread, ...))
  if status(task.thread) == "suspended" then
    task.waits_for = step[2]
  elseif step[1] then
    finish_task(task, true, unpack(step, 2, step.n))
  else
    finish_task(task, false, step[2])
  end
end

-- Resumes every task whose awaited task has ended. True if there was one.
local function wake_joiners()
  for _, task in ipairs(tasks) do
    local waits_for = task.waits_for
    if type(waits_for) == "table" and waits_for.ready() then
      if waits_for.timer then give_up(waits_for.timer) end
      advance(task, true)
      return true
    end
  end
  return false
end

-- Lets one thing happen: a task goes on, or (answering its results) the operation `mine` ends.
local function step(mine)
  if wake_joiners() then return nil end
  local pendings, owners = {}, {}
  if mine then pendings[1], owners[1] = mine, false end
  for _, task in ipairs(tasks) do
    local waits_for = task.waits_for
    if type(waits_for) == "table" then waits_for = waits_for.timer end
    if waits_for and status(task.thread) == "suspended" then
      pendings[#pendings + 1], owners[#owners + 1] = waits_for, task
    end
  end
  if #pendings == 0 then
    -- Only tasks that wait for each other are left.
    raise("co: every task waits for another, none can go on")
  end
  local answer = pack(wait_any(unpack(pendings)))
  -- Broken off: the hook of the deadline raises at the next instruction.
  if not answer[1] then raise(answer[2]) end
  local task = owners[answer[2]]
  if not task then return pack(unpack(answer, 3, answer.n)) end
  advance(task, unpack(answer, 3, answer.n))
end

-- Hands on what a native answered, after waiting if it was only started.
local function finish(ok, ...)
  if ok then return ... end
  if ok == nil then return P.await((...)) end
  raise((...))
end
P.finish = finish

-- Waits for a started operation; answers its results or raises its error.
function P.await(pending)
  if by_thread[running()] and yieldable() then return finish(yield(pending)) end
  if #tasks == 0 then
    local answer = pack(wait_any(pending))
    if not answer[1] then raise(answer[2]) end
    return finish(unpack(answer, 3, answer.n))
  end
  while true do
    local results = step(pending)
    if results then return finish(unpack(results, 1, results.n)) end
  end
end

-- Waits until `ready()`, which only other tasks can make true. False if `seconds` passed first.
function P.await_condition(ready, seconds)
  if ready() then return true end
  local clock
  if seconds then
    local _, pending = timer(seconds)
    clock = pending
  end
  if by_thread[running()] and yieldable() then
    yield({ ready = ready, timer = clock })
    return ready()
  end
  while not ready() do
    if step(clock) then return ready() end
  end
  if clock then give_up(clock) end
  return true
end

local function spawn(fn, ...)
  local task = setmetatable({ thread = create(fn), born = P.where() }, Task)
  by_thread[task.thread] = task
  tasks[#tasks + 1] = task
  advance(task, ...)
  return task
end

local function checked(fn, what)
  if type(fn) ~= "function" then
    raise(what .. ": argument 1 (fn) must be a function, got " .. P.kind(fn))
  end
  return fn
end

P.def("co", "spawn", "(fn: function, ...): Task",
  "Starts `fn(...)` as a task: it runs until it first waits, then beside the main body.",
  function(fn, ...) return spawn(checked(fn, "co.spawn"), ...) end)

P.def("co", "wrap", "(fn: function): fun(...)",
  "Returns a function that starts `fn(...)` as a task and returns once it first waits or ends.",
  function(fn)
    checked(fn, "co.wrap")
    return function(...) spawn(fn, ...) end
  end)

Task.join = P.def("Task", "join", "(timeout?): any...",
  "Waits for the task's end; returns its results or raises its error.",
  function(task, timeout)
    local seconds = timeout ~= nil
      and P.native._time.seconds(timeout, "task:join: timeout") or nil
    if not P.await_condition(function() return task.ok ~= nil end, seconds) then
      raise("task:join: timed out waiting for the task after " .. P.native._time.show(seconds))
    end
    task.joined = true
    if task.ok then return unpack(task.results, 1, task.results.n) end
    error(task.results[1], 0)
  end)

Task.done = P.def("Task", "done", "(): boolean", "True once the task has ended.",
  function(task) return task.ok ~= nil end)

-- At the end of a test or of the file's chunk: waits for unfinished tasks; the first error of
-- a task that nobody joined is raised.
local started = {}
local spawn_plain = spawn
spawn = function(...)
  local task = spawn_plain(...)
  started[#started + 1] = task
  return task
end

function P.finish_tasks()
  while #tasks > 0 do step() end
  local all = started
  started = {}
  for _, task in ipairs(all) do
    if not task.ok and not task.joined then
      task.joined = true
      error(task.results[1], 0)
    end
  end
end

-- Gives up whatever is left, after a body was stopped.
function P.drop_tasks()
  for _, task in ipairs(tasks) do
    local waits_for = task.waits_for
    if type(waits_for) == "table" then waits_for = waits_for.timer end
    if waits_for then give_up(waits_for) end
  end
  for i = #tasks, 1, -1 do tasks[i] = nil end
  started = {}
end
