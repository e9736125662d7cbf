//! The test framework seen from outside: outcomes, messages, positions (lua-api sections 1,
//! 2, 16, 17). No guest is booted here.

mod support;

use std::time::Duration;

use provium_lua::{Evaluated, FileStatus, Filter, Interrupt, Outcome};
use support::{Options, run, run_among, run_with};

#[test]
fn l209_bodies_run_in_order_after_the_chunk() {
    let run = run(r#"
        local order = {}
        test("first", function(t) order[#order + 1] = t.name; t:assert_eq(#order, 2) end)
        test("second", {tags = "x"}, function(t)
            t:assert_eq(t.meta.tags, "x"); t:assert_eq(#order, 2)
        end)
        order[1] = "chunk"
    "#);
    run.all_passed();
    assert_eq!(run.record.started, ["first", "second"]);
    assert_eq!(run.report.status, FileStatus::Passed);
}

#[test]
fn l209_bad_registrations_raise_at_the_authors_line() {
    for (source, message) in [
        (
            "test(1, print)",
            "a.test.lua:1: test: argument 1 (name) must be a string, got integer",
        ),
        (
            "test('x')",
            "a.test.lua:1: test: argument 2 (fn) must be a function, got nil",
        ),
        (
            "test('x', 3, print)",
            "a.test.lua:1: test: argument 2 (meta) must be a table, got integer",
        ),
        (
            "test('x', {}, 3)",
            "a.test.lua:1: test: argument 3 (fn) must be a function, got integer",
        ),
        (
            "test('x', print)\ntest('x', print)",
            "a.test.lua:2: test: duplicate name `x` in this file",
        ),
    ] {
        let run = run(source);
        assert_eq!(run.chunk_error(), message);
        assert_eq!(run.report.status, FileStatus::Failed);
    }
    let inner = run("test('x', function() test('y', print) end)");
    assert!(
        inner
            .failure("x")
            .starts_with("a.test.lua:1: test: cannot register `y`")
    );
}

#[test]
fn l211_l249_assertions_say_file_line_and_values() {
    let run = run("test('eq', function(t)\n  t:assert_eq(1, 2)\nend)
        test('eq msg', function(t) t:assert_eq('a\\n', 'b', 'name') end)
        test('neq', function(t) t:assert_neq('x', 'x') end)
        test('plain', function(t) t:assert(false) end)
        test('msg', function(t) t:assert(nil, 'why') end)
        test('fail', function(t) t:fail() end)
        test('contains', function(t) t:assert_contains('abc', 'x') end)
        test('types', function(t) t:assert_contains('abc', 1) end)");
    assert_eq!(run.failure("eq"), "a.test.lua:2: 1 ~= 2");
    assert_eq!(run.failure("eq msg"), "a.test.lua:4: name: \"a\\n\" ~= b");
    assert_eq!(run.failure("neq"), "a.test.lua:5: x == x");
    assert_eq!(run.failure("plain"), "a.test.lua:6: assertion failed");
    assert_eq!(run.failure("msg"), "a.test.lua:7: why");
    assert_eq!(
        run.failure("fail"),
        "a.test.lua:8: explicit failure (t:fail)"
    );
    assert_eq!(
        run.failure("contains"),
        "a.test.lua:9: \"x\" not found in \"abc\""
    );
    assert!(
        run.failure("types")
            .contains("must be strings, got string and integer")
    );
    let Outcome::Failed(failure) = &run.end("eq").outcome else {
        panic!()
    };
    assert_eq!(
        (failure.file.as_deref(), failure.line),
        (Some("a.test.lua"), Some(2))
    );
    assert_eq!(failure.source_line.as_deref(), Some("  t:assert_eq(1, 2)"));
    assert_eq!(failure.values, Some(("1".into(), "2".into())));
}

#[test]
fn l213_assert_raises_returns_the_error_and_forgets_failures_inside() {
    let run = run(r#"
        test("ok", function(t)
            local e = t:assert_raises(function() error({code = 7}) end)
            t:assert_eq(e.code, 7)
            local s = t:assert_raises(function() t:fail("inner") end)
            t:assert_contains(s, "inner")
        end)
        test("no raise", function(t) t:assert_raises(function() end) end)
        test("no raise msg", function(t) t:assert_raises(function() end, "m") end)
        test("skip passes", function(t) t:assert_raises(function() t:skip("s") end) end)
    "#);
    assert_eq!(run.end("ok").outcome, Outcome::Passed);
    assert!(run.failure("no raise").ends_with(": expected to raise"));
    assert!(
        run.failure("no raise msg")
            .ends_with(": m: expected to raise")
    );
    assert_eq!(run.reason("skip passes"), "s");
}

#[test]
fn l215_failures_and_skips_stick() {
    let run = run(r#"
        test("failed", function(t) pcall(function() t:assert(false, "first") end) end)
        test("skipped", function(t) pcall(function() t:skip("later") end) end)
        test("both", function(t)
            pcall(t.skip, t, "s"); pcall(t.fail, t, "f")
        end)
        test("then", function(t) pcall(t.fail, t, "f"); error("g") end)
    "#);
    assert_eq!(run.failure("failed"), "a.test.lua:2: first");
    assert_eq!(run.reason("skipped"), "later");
    assert!(run.failure("both").ends_with(": f"));
    assert_eq!(
        run.failure("then"),
        "a.test.lua:7: f\nthen: a.test.lua:7: g"
    );
}

#[test]
fn l216_todo_skips_the_file_or_the_test() {
    let file = run("todo('not yet') test('x', function() error('ran') end)");
    assert_eq!(file.reason("x"), "not yet");
    assert_eq!(file.report.status, FileStatus::Passed);
    let body = run("test('x', function() todo() end)");
    assert_eq!(body.reason("x"), "todo");
}

#[test]
fn l217_wait_until_polls_and_times_out() {
    let run = run(r#"
        test("value", function(t)
            local n = 0
            local v = wait_until(function() n = n + 1; return n == 3 and "done" end, {interval = 0.001})
            t:assert_eq(v, "done")
        end)
        test("timeout", function()
            wait_until(function() end, {timeout = "30ms", interval = 0.01, desc = "the moon"})
        end)
        test("error", function() wait_until(function() error("at once") end) end)
        test("bad", function() wait_until(function() end, {timeout = "soon"}) end)
        test("key", function() wait_until(function() end, {timeot = 1}) end)
    "#);
    assert_eq!(run.end("value").outcome, Outcome::Passed);
    assert_eq!(
        run.failure("timeout"),
        "a.test.lua:8: wait_until: the moon not met within 0.03s"
    );
    assert_eq!(run.failure("error"), "a.test.lua:10: at once");
    assert!(run.failure("bad").contains("bad timeout string \"soon\""));
    assert!(run.failure("key").contains("unknown option `timeot`"));
}

#[test]
fn l218_global_assert_keeps_its_contract() {
    let run = run("test('ok', function(t)
            local a, b = assert(1, 'm'); t:assert_eq(a, 1); t:assert_eq(b, 'm')
            local ok, e = pcall(assert, nil, t); t:assert_eq(e, t)
        end)
        test('default', function() assert(1 == 2) end)
        test('text', function() assert(false, 'why') end)
        test('eq', function() assert_eq('a', 'b\\0') end)
        test('eq msg', function() assert_eq(1, 2, 'm') end)");
    assert_eq!(run.end("ok").outcome, Outcome::Passed);
    let text = run.failure("default");
    assert!(
        text.starts_with("a.test.lua:5: assertion failed! (value: false)"),
        "{text}"
    );
    assert!(
        text.contains("assert(1 == 2)") && text.ends_with("a.test.lua:5"),
        "{text}"
    );
    assert_eq!(run.failure("text"), "a.test.lua:6: why");
    assert_eq!(
        run.failure("eq"),
        "a.test.lua:7: expected \"a\", got \"b\\x00\""
    );
    assert_eq!(run.failure("eq msg"), "a.test.lua:8: m: expected 1, got 2");
}

#[test]
fn l219_a_failing_chunk_leaves_its_tests_unreached() {
    let run = run("test('x', print)\nlocal t = nil\nreturn t.y");
    assert_eq!(run.reason("x"), "not run: the file's code failed");
    assert!(
        run.chunk_error()
            .starts_with("a.test.lua:3: attempt to index a nil value")
    );
    assert_eq!(run.report.status, FileStatus::Failed);
}

#[test]
fn l219_a_syntax_error_is_the_files_failure() {
    let run = run("local = 3");
    assert!(
        run.chunk_error().starts_with("a.test.lua:1: "),
        "{}",
        run.chunk_error()
    );
    assert_eq!(
        run.report
            .chunk_error
            .as_ref()
            .unwrap()
            .source_line
            .as_deref(),
        Some("local = 3")
    );
}

#[test]
fn l221_a_deadline_ends_only_its_test() {
    let run = run(r#"
        test("loop", {timeout = "50ms"}, function()
            while true do pcall(function() while true do end end) end
        end)
        test("wait", {timeout = 0.05}, function() wait_until(function() end) end)
        test("next", function(t) t:assert(true) end)
        test("bad", {timeout = "x"}, function() end)
    "#);
    assert_eq!(run.failure("loop"), "a.test.lua:3: timed out after 0.05s");
    assert!(run.failure("wait").ends_with("timed out after 0.05s"));
    assert_eq!(run.end("next").outcome, Outcome::Passed);
    assert!(
        run.failure("bad")
            .contains("meta.timeout: bad timeout string \"x\"")
    );
}

#[test]
fn r112_the_file_deadline_ends_the_file() {
    let source =
        "test('a', function() end) test('b', function() while true do end end) test('c', print)";
    let options = Options {
        timeout: Some(Duration::from_millis(100)),
        ..Options::default()
    };
    let run = run_with(source, options);
    assert_eq!(run.end("a").outcome, Outcome::Passed);
    assert_eq!(run.failure("b"), "a.test.lua:1: file timed out after 0.1s");
    assert_eq!(run.reason("c"), "not run: file timed out after 0.1s");
    assert_eq!(run.report.status, FileStatus::TimedOut);
}

#[test]
fn r062_an_interrupt_fails_the_running_test() {
    let interrupt = Interrupt::default();
    let later = interrupt.clone();
    let waker = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(50));
        later.set();
    });
    let options = Options {
        interrupt,
        ..Options::default()
    };
    let run = run_with(
        "test('a', function() while true do end end) test('b', print)",
        options,
    );
    waker.join().unwrap();
    assert!(run.failure("a").ends_with(": interrupted"));
    assert_eq!(run.reason("b"), "not run: interrupted");
    assert_eq!(run.report.status, FileStatus::Failed);
}

#[test]
fn l222_l223_meta_skips() {
    let run = run(r#"
        test("skip", {skip = "broken"}, function() error("ran") end)
        test("slow", {slow = true}, function() error("ran") end)
        test("meta", {f = print, n = 1}, function(t) t:assert_eq(t.meta.n, 1) end)
    "#);
    assert_eq!(run.reason("skip"), "skipped: broken");
    assert!(
        run.reason("slow")
            .starts_with("filtered: slow tests skipped")
    );
    assert_eq!(run.end("meta").outcome, Outcome::Passed);
    assert!(
        run.record.warnings[0].contains("a function was left out"),
        "{:?}",
        run.record.warnings
    );
    let options = Options {
        filter: Filter {
            include_slow: true,
            ..Filter::default()
        },
        ..Options::default()
    };
    assert!(
        run_with("test('s', {slow=1}, function() error('ran') end)", options)
            .failure("s")
            .ends_with("ran")
    );
}

#[test]
fn l214_the_log_is_kept_in_order() {
    let run = run("test('x', function(t) t:log('a') t:log(1) t:log(nil) end)");
    assert_eq!(run.end("x").log, ["a", "1", "nil"]);
}

#[test]
fn l001_l002_the_globals_are_there() {
    let run = run(r#"
        test("globals", function(t)
            for _, name in ipairs{"provium","json","co","test","todo","wait_until","assert","assert_eq","assert_contains"} do
                t:assert_neq(_G[name], nil, name)
            end
            t:assert_contains(t:assert_raises(os.exit), "os.exit")
            t:assert_eq(type(io.popen), "function"); t:assert_eq(_VERSION, "Lua 5.4")
            print("hello", 1, nil)
        end)
    "#);
    run.all_passed();
    assert_eq!(run.record.printed, "hello\t1\tnil\n");
}

#[test]
fn l232_errors_in_helpers_name_the_helper() {
    let helper = "local m = {}\nfunction m.go(t)\n  t:assert_eq(1, 2)\nend\nreturn m";
    let source = "local h = require('helper')\ntest('x', function(t) h.go(t) end)
        test('cut', function() local f <const> = 1; require('missing') end)";
    let run = run_among(source, &[("helper.lua", helper)]);
    assert_eq!(run.failure("x"), "helper.lua:3: 1 ~= 2");
    assert!(run.failure("cut").contains("module 'missing' not found"));
}

#[test]
fn l232_a_tail_call_still_has_a_position() {
    let run = run("test('x', function(t)\n  return t:fail('f')\nend)");
    assert_eq!(run.failure("x"), "a.test.lua:1: f");
}

#[test]
fn l207_l208_json_errors_are_the_authors() {
    let run = run(
        "test('x', function() json.decode('[1') end)\ntest('y', function() json.encode{a=print} end)",
    );
    assert!(
        run.failure("x")
            .starts_with("a.test.lua:1: json.decode: EOF while"),
        "{}",
        run.failure("x")
    );
    assert_eq!(
        run.failure("y"),
        "a.test.lua:2: json.encode: .a: cannot encode a function"
    );
}

#[test]
fn l003_l009_tasks_wait_side_by_side() {
    let run = run(r#"
        test("order", function(t)
            local steps = {}
            local function note(s) steps[#steps + 1] = s end
            local task = co.spawn(function() note("a"); wait_until(function() return #steps >= 2 end, {interval="1ms"}); note("c") return 9 end)
            note("b")
            t:assert_eq(task:join(), 9)
            t:assert_eq(table.concat(steps), "abc")
        end)
        test("pcall", function(t)
            local n, ok = 0, nil
            co.spawn(function()
                ok = pcall(function() wait_until(function() n = n + 1; return n > 2 end, {interval="1ms"}); error("x") end)
            end)
            t:assert_eq(ok, nil)
            wait_until(function() return ok ~= nil end, {interval="1ms"})
            t:assert_eq(ok, false)
        end)
        test("unjoined", function() co.spawn(function() wait_until(function() return true end); error("lost") end) end)
        test("finished", function(t) co.spawn(function() wait_until(function() return P end, {timeout="5ms", interval="1ms"}) end) end)
        test("barrier", function(t)
            local passed
            co.spawn(function() passed = provium:barrier("x", 2) end)
            t:assert_eq(passed, nil)
            t:assert_eq(provium:barrier("x", 2, "5s"), true)
        end)
        test("deadlock", function(t)
            local a, b
            a = co.spawn(function() wait_until(function() return b end, {interval="1ms"}); b:join() end)
            b = co.spawn(function() a:join() end)
            t:assert_contains(t:assert_raises(function() a:join() end), "none can go on")
            t:skip("done")
        end)
        test("next", function(t) t:assert(true) end)
    "#);
    assert_eq!(run.end("order").outcome, Outcome::Passed);
    assert_eq!(run.end("pcall").outcome, Outcome::Passed);
    assert!(
        run.failure("unjoined").ends_with(": lost"),
        "{}",
        run.failure("unjoined")
    );
    assert!(run.failure("finished").contains("not met within 0.005s"));
    assert_eq!(run.end("barrier").outcome, Outcome::Passed);
    assert_eq!(run.reason("deadlock"), "done");
    assert_eq!(run.end("next").outcome, Outcome::Passed);
}

#[test]
fn l010_l013_l014_provium_is_a_lab_with_few_settings() {
    let run = run(r#"
        local root = provium
        provium:vm("a", "minimal")
        provium.timeout = "30ms"
        test("scope", function(t)
            t:assert_neq(provium, root)
            t:assert_eq(provium.a, root.a)
            t:assert_eq(provium.nothing, nil)
            t:assert_eq(root.a:state(), "created")
            t:assert_contains(tostring(root.a), "VM(a#")
            t:assert_contains(t:assert_raises(function() provium.x = 1 end), "`x`")
            t:assert_contains(t:assert_raises(function() provium:vm("b", "nosuch") end), "known: minimal")
            t:assert_contains(t:assert_raises(function() root.a:run("x") end), "state is created")
            t:assert_contains(t:assert_raises(function() root.a.run("x") end), "must be called on a VM handle")
        end)
        test("deadline", function() while true do end end)
    "#);
    assert_eq!(
        run.end("scope").outcome,
        Outcome::Passed,
        "{:?}",
        run.end("scope")
    );
    assert!(run.failure("deadline").ends_with("timed out after 0.03s"));
}

#[test]
fn c011_pack_needs_no_guest() {
    run(r##"
        test("pack", function(t)
            t:assert_eq(provium.pack("u8 i16", 255, -2), "\xff\xfe\xff")
            t:assert_eq(provium.unpack("u64", ("\xff"):rep(8)), -1)
            t:assert_eq(select("#", provium.unpack("u8 u8", "abc")), 2)
            t:assert_eq(select(2, provium:unpack("<I2", "ab")), 3)
            t:assert_contains(t:assert_raises(function() provium.pack("u8", -129) end), "out of range: -129")
            t:assert_contains(t:assert_raises(function() provium.pack("u8", 1.5) end), "a.test.lua:8: pack: value 1")
        end)
    "##)
    .all_passed();
}

#[test]
fn every_function_is_in_the_table() {
    let lua = support::interactive();
    let entries = lua.reference().unwrap();
    for entry in &entries {
        let name = format!("{}.{}", entry.class, entry.name);
        assert!(
            !entry.doc.is_empty() && !entry.signature.is_empty(),
            "{name}"
        );
    }
    let has = |class: &str, name: &str| entries.iter().any(|e| e.class == class && e.name == name);
    for (class, name) in [
        ("VM", "run"),
        ("Worker", "run"),
        ("VM", "exec"),
        ("", "test"),
        ("t", "skip"),
    ] {
        assert!(has(class, name), "{class}.{name}");
    }
}

#[test]
fn r004_the_prompt_completes_names() {
    let lua = support::interactive();
    let has =
        |path: &str, mark: &str, name: &str| lua.complete(path, mark).iter().any(|n| n == name);
    assert!(has("", "", "provium") && has("", "", "wait_until"));
    assert!(has("provium", ":", "vm") && has("string", ".", "format"));
    lua.evaluate("a = {b = {c = 1, f = print}} vm = provium:vm('x', 'minimal')");
    assert_eq!(lua.complete("a.b", "."), ["c", "f"]);
    assert_eq!(lua.complete("a.b", ":"), ["f"]);
    assert!(has("vm", ":", "boot") && !has("vm", ":", "vm_names"));
    assert!(lua.complete("nothing.at.all", ".").is_empty());
}

#[test]
fn r004_an_interrupt_ends_one_evaluation() {
    let lua = support::interactive();
    let interrupt = lua.interrupt();
    let thread = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(50));
        interrupt.set();
    });
    assert_eq!(
        lua.evaluate("while true do end"),
        Evaluated::Failed("interrupted".into())
    );
    thread.join().unwrap();
    assert_eq!(lua.evaluate("1 + 1"), Evaluated::Done(Some("2".into())));
}

#[test]
fn r004_the_prompt_shows_values_and_survives_errors() {
    let lua = support::interactive();
    let shown = |source: &str| lua.evaluate(source);
    assert_eq!(
        shown("1 + 1, 'a'"),
        Evaluated::Done(Some("2\t\"a\"".into()))
    );
    assert_eq!(shown("x = {1, 2, k = 'v'}"), Evaluated::Done(None));
    assert_eq!(
        shown("x"),
        Evaluated::Done(Some("{1, 2, k = \"v\"}".into()))
    );
    let Evaluated::Done(Some(long)) = shown("{name = ('x'):rep(60), list = {1, {2, 3}}, z = 1}")
    else {
        panic!("not shown")
    };
    assert_eq!(long.lines().count(), 5, "{long}");
    assert!(long.contains("\n  list = {1, {2, 3}},\n"), "{long}");
    assert_eq!(
        shown("(function() local t = {} t.t = t return t end)()"),
        Evaluated::Done(Some("{t = <this table again>}".into()))
    );
    assert_eq!(shown("for i = 1, 2 do"), Evaluated::Incomplete);
    assert_eq!(shown("error('no')"), Evaluated::Failed("repl:1: no".into()));
    assert_eq!(
        shown("provium:name()"),
        Evaluated::Done(Some("\"provium\"".into()))
    );
}
