//! The report as text.

use std::fmt::Write as _;

use crate::report::{Report, Test, Totals};

/// Renders the report.
pub(crate) fn render(report: &Report) -> String {
    let mut out = String::new();
    let key = &report.key;
    let _ = writeln!(
        out,
        "{} identifier(s) under meta.{key}",
        report.identifiers.len()
    );
    for identifier in &report.identifiers {
        let word = identifier.totals.verdict().word();
        let _ = writeln!(
            out,
            "\n{}  {word} ({})",
            identifier.id,
            counts(identifier.totals)
        );
        tests(&mut out, &identifier.tests);
    }
    if !report.without.is_empty() {
        let _ = writeln!(out, "\n{} test(s) without meta.{key}", report.without.len());
        tests(&mut out, &report.without);
    }
    out.push_str("\nfiles\n");
    for file in &report.files {
        let _ = writeln!(
            out,
            "    {:<9}  {:>8.2}s  {}",
            file.status, file.seconds, file.path
        );
    }
    out.push_str("\nresources\n");
    let used = &report.resources;
    for (what, value) in [
        (
            "files in flight at most",
            used.peak_files_in_flight.to_string(),
        ),
        (
            "memory of the pool at most",
            mebibytes(used.peak_memory_bytes),
        ),
        ("CPUs claimed at most", used.peak_cpus.to_string()),
        ("VMs", used.vms.to_string()),
        ("waits for the pool", used.blocked_pool_full.to_string()),
        ("waits for idle CPUs", used.blocked_psi_pressure.to_string()),
        ("fixtures built", used.fixture_builds.to_string()),
        (
            "fixture builds that failed",
            used.fixture_failures.to_string(),
        ),
        ("fixtures from the cache", used.fixture_hits.to_string()),
    ] {
        let _ = writeln!(out, "    {what:<26}  {value}");
    }
    let _ = writeln!(out, "\n{}", counts(report.totals));
    out
}

/// Counts for people.
pub(crate) fn counts(totals: Totals) -> String {
    let Totals {
        passed,
        failed,
        skipped,
    } = totals;
    format!("{passed} passed, {failed} failed, {skipped} skipped")
}

/// A size for people.
pub(crate) fn mebibytes(bytes: u64) -> String {
    format!("{} MiB", bytes.div_ceil(1 << 20))
}

fn tests(out: &mut String, tests: &[Test]) {
    for test in tests {
        let name = test.name.replace('\n', "\\n");
        let _ = writeln!(out, "    {:<7}  {}: {name}", test.outcome.word(), test.path);
    }
}

#[cfg(test)]
mod tests_of_text {
    #[test]
    fn r116_the_text_says_everything() {
        let text = super::render(&crate::report::tests::sample());
        for line in [
            "2 identifier(s) under meta.spec",
            "A-9  failed (1 passed, 1 failed, 0 skipped)",
            "    failed   a.test.lua: four",
            "1 test(s) without meta.spec",
            "    failed         1.50s  a.test.lua",
            "    memory of the pool at most  5 MiB",
            "3 passed, 1 failed, 0 skipped",
        ] {
            assert!(text.lines().any(|found| found == line), "{line}\n{text}");
        }
    }
}
