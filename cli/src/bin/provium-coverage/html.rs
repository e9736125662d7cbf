//! The report as one self-contained page.

use std::fmt::Write as _;

use crate::report::{Report, Test};
use crate::text::{counts, mebibytes};

const STYLE: &str = "body{font:15px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:60rem;padding:0 1rem}\
table{border-collapse:collapse;width:100%}td,th{text-align:left;padding:.2rem .6rem;border-bottom:1px solid #8884}\
.passed{color:#1a7f37}.failed,.crashed,.timed{color:#cf222e}.skipped,.not{color:#9a6700}\
details>div{margin:.2rem 0 .6rem 1.5rem}summary{cursor:pointer}\
@media(prefers-color-scheme:dark){body{background:#0d1117;color:#e6edf3}}";

/// Renders the report.
pub(crate) fn render(report: &Report) -> String {
    let mut out = format!(
        "<!doctype html>\n<html lang=\"en\"><meta charset=\"utf-8\"><title>Coverage</title>\
         <meta name=\"viewport\" content=\"width=device-width\"><style>{STYLE}</style>\n\
         <h1>Coverage by <code>{}</code></h1>\n<p>{} identifiers; {}</p>\n",
        escaped(&report.key),
        report.identifiers.len(),
        counts(report.totals)
    );
    for identifier in &report.identifiers {
        let word = identifier.totals.verdict().word();
        let _ = writeln!(
            out,
            "<details><summary><b>{}</b> <span class=\"{word}\">{word}</span> ({})</summary>{}</details>",
            escaped(&identifier.id),
            counts(identifier.totals),
            tests(&identifier.tests)
        );
    }
    if !report.without.is_empty() {
        let _ = writeln!(
            out,
            "<h2>Without an identifier</h2>\n<details><summary>{} tests</summary>{}</details>",
            report.without.len(),
            tests(&report.without)
        );
    }
    out.push_str("<h2>Files</h2>\n<table><tr><th>Status<th>Seconds<th>File\n");
    for file in &report.files {
        let _ = writeln!(
            out,
            "<tr><td class=\"{0}\">{0}<td>{1:.2}<td>{2}",
            file.status,
            file.seconds,
            escaped(&file.path)
        );
    }
    let used = &report.resources;
    let _ = write!(
        out,
        "</table>\n<h2>Resources</h2>\n<p>At most {} files in flight, {} and {} CPUs of the pool; {} VMs. \
         Waits: {} for the pool, {} for idle CPUs. Fixtures: {} built, {} failed, {} from the cache.</p>\n</html>\n",
        used.peak_files_in_flight,
        mebibytes(used.peak_memory_bytes),
        used.peak_cpus,
        used.vms,
        used.blocked_pool_full,
        used.blocked_psi_pressure,
        used.fixture_builds,
        used.fixture_failures,
        used.fixture_hits
    );
    out
}

fn tests(tests: &[Test]) -> String {
    let mut out = String::from("<div>");
    for test in tests {
        let word = test.outcome.word();
        let _ = write!(
            out,
            "<div><span class=\"{word}\">{word}</span> {}: {}</div>",
            escaped(&test.path),
            escaped(&test.name)
        );
    }
    out + "</div>"
}

/// Text that is text in HTML, also between quotes.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests_of_html {
    #[test]
    fn r116_the_page_is_whole_and_names_are_text() {
        let page = super::render(&crate::report::tests::sample());
        assert!(page.starts_with("<!doctype html>") && page.ends_with("</html>\n"));
        assert!(page.contains("three &lt;&amp;&gt;"), "{page}");
        assert!(!page.contains("three <&>"), "{page}");
        assert_eq!(
            page.matches("<details>").count(),
            page.matches("</details>").count()
        );
    }
}
