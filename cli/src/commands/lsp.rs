//! `provium lsp-setup`: stubs of the whole Lua API for editors (cli-and-config R-008).
//!
//! The stubs are made from the table that the bindings themselves are made from, so they name
//! what is there and nothing else.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::io;
use std::path::{Path, PathBuf};

use provium_lua::Entry;

use crate::api;
use crate::args::LspArgs;
use crate::exit::Exit;
use crate::problem::Problem;
use crate::say::say;

/// Where the stubs go, below the project.
const STUBS: &str = ".provium-meta/types.lua";

/// What a language server is told.
const LUARC: &str = r#"{
  "runtime.version": "Lua 5.4",
  "workspace.library": [".provium-meta"]
}
"#;

/// Writes the stubs and points the language server to them.
pub(crate) fn lsp_setup(args: &LspArgs) -> Result<Exit, Problem> {
    let dir = args.dir.clone().unwrap_or_else(|| PathBuf::from("."));
    let stubs = dir.join(STUBS);
    write(&stubs, &stubs_of(&api::entries()?)).map_err(Problem::file("write", &stubs))?;
    say!("wrote {}", stubs.display());
    let luarc = dir.join(".luarc.json");
    let there = std::fs::read_to_string(&luarc).ok();
    if let Some(text) = there
        && text != LUARC
        && !args.force
    {
        eprintln!(
            "provium: {} is there already and is left alone; merge this into it, or replace it with --force:\n\n{LUARC}",
            luarc.display()
        );
        return Ok(Exit::Failed);
    }
    write(&luarc, LUARC).map_err(Problem::file("write", &luarc))?;
    say!("wrote {}", luarc.display());
    Ok(Exit::Success)
}

fn write(path: &Path, text: &str) -> io::Result<()> {
    if let Some(dir) = path.parent() {
        std::fs::create_dir_all(dir)?;
    }
    std::fs::write(path, text)
}

/// Names of types that language servers know.
const KNOWN: &[&str] = &[
    "any", "boolean", "string", "integer", "number", "table", "nil", "fun", "function", "userdata",
    "thread", "unknown", "self",
];

/// The stub file of a table of functions.
fn stubs_of(entries: &[Entry]) -> String {
    let mut out = String::from(
        "---@meta\n-- The Lua API of Provium, written by `provium lsp-setup`. Not loaded when tests run.\n",
    );
    let mut classes: Vec<&str> = Vec::new();
    for entry in entries {
        if !classes.contains(&&*entry.class) {
            classes.push(&entry.class);
        }
    }
    for class in &classes {
        head(&mut out, class);
        for entry in entries.iter().filter(|entry| entry.class == **class) {
            function(&mut out, entry, entries);
        }
    }
    for name in missing_types(entries, &classes) {
        let _ = write!(out, "\n---@class {name}\n");
    }
    out.push_str("\n---The file's lab: what is declared in a test lives as long as that test.\n---@type Lab\nprovium = {}\n");
    out
}

/// True for tables whose functions are called with a dot.
fn is_library(class: &str) -> bool {
    matches!(class, "json" | "co")
}

fn head(out: &mut String, class: &str) {
    let _ = match class {
        "" => Ok(()),
        _ if is_library(class) => write!(out, "\n---@class {class}lib\n{class} = {{}}\n"),
        _ => write!(out, "\n---@class {class}\nlocal {class} = {{}}\n"),
    };
}

fn function(out: &mut String, entry: &Entry, entries: &[Entry]) {
    let signature = resolved(entry, entries);
    let (parameters, results) = parts(signature);
    out.push('\n');
    for line in entry.doc.lines() {
        let _ = writeln!(out, "---{line}");
    }
    let parameters: Vec<Parameter> = parameters
        .iter()
        .map(|text| Parameter::read(text))
        .collect();
    for Parameter {
        name,
        optional,
        kind,
    } in &parameters
    {
        let mark = if *optional { "?" } else { "" };
        let _ = writeln!(out, "---@param {name}{mark} {kind}");
    }
    for result in results {
        let (kind, rest) = match result.strip_suffix("...") {
            Some(kind) => (kind, " ..."),
            None => (result, ""),
        };
        let kind = if kind.is_empty() { "any" } else { kind };
        let _ = writeln!(out, "---@return {}{rest}", complete(kind));
    }
    let names: Vec<&str> = parameters
        .iter()
        .map(|parameter| &*parameter.name)
        .collect();
    let (class, name, names) = (&entry.class, &entry.name, names.join(", "));
    let _ = match &**class {
        "" => writeln!(out, "function {name}({names}) end"),
        class if is_library(class) => writeln!(out, "function {class}.{name}({names}) end"),
        class => writeln!(out, "function {class}:{name}({names}) end"),
    };
}

/// The signature, of the function meant if the entry is a second name.
fn resolved<'a>(entry: &'a Entry, entries: &'a [Entry]) -> &'a str {
    let Some(target) = entry.signature.strip_prefix("= ") else {
        return &entry.signature;
    };
    let named = entries
        .iter()
        .find(|other| other.class == entry.class && other.name == target);
    named.map_or("(...)", |other| &other.signature)
}

/// Parameters and results of `(a, b?: T): R, S`.
fn parts(signature: &str) -> (Vec<&str>, Vec<&str>) {
    let inner = signature.strip_prefix('(').unwrap_or(signature);
    let mut depth = 0_i32;
    let close = inner.char_indices().find_map(|(at, c)| {
        match c {
            '(' => depth += 1,
            ')' if depth == 0 => return Some(at),
            ')' => depth -= 1,
            _ => {}
        }
        None
    });
    let (parameters, rest) = inner.split_at(close.unwrap_or(inner.len()));
    let results = rest.strip_prefix("): ").unwrap_or_default();
    (split(parameters), split(results))
}

/// Splits at commas that are not within brackets.
fn split(text: &str) -> Vec<&str> {
    let mut parts = Vec::new();
    let (mut depth, mut start) = (0_i32, 0);
    for (at, c) in text.char_indices() {
        match c {
            '(' | '{' | '[' | '<' => depth += 1,
            ')' | '}' | ']' | '>' => depth -= 1,
            ',' if depth == 0 => {
                parts.push(text[start..at].trim());
                start = at + 1;
            }
            _ => {}
        }
    }
    parts.push(text[start..].trim());
    parts.retain(|part| !part.is_empty());
    parts
}

struct Parameter {
    name: String,
    optional: bool,
    kind: String,
}

impl Parameter {
    fn read(text: &str) -> Self {
        let (name, kind) = text.split_once(':').unwrap_or((text, "any"));
        let name = name.trim();
        let (name, optional) = match name.strip_suffix('?') {
            Some(name) => (name, true),
            None => (name, false),
        };
        Self {
            name: name.to_owned(),
            optional,
            kind: complete(kind.trim()),
        }
    }
}

/// A type whose table fields without a type are of any type: `{a?, b: T}` as `{a?: any, b: T}`.
fn complete(kind: &str) -> String {
    let (Some(open), Some(close)) = (kind.find('{'), kind.rfind('}')) else {
        return kind.to_owned();
    };
    let fields: Vec<String> = split(&kind[open + 1..close])
        .into_iter()
        .map(|field| match field.split_once(':') {
            Some((name, kind)) => format!("{}: {}", name.trim(), complete(kind.trim())),
            None => format!("{field}: any"),
        })
        .collect();
    format!(
        "{}{{{}}}{}",
        &kind[..open],
        fields.join(", "),
        &kind[close + 1..]
    )
}

/// Capitalised names in signatures that are no class of the table: results that are plain tables.
fn missing_types(entries: &[Entry], classes: &[&str]) -> BTreeSet<String> {
    let words = entries.iter().flat_map(|entry| {
        entry
            .signature
            .split(|c: char| !c.is_alphanumeric() && c != '_')
    });
    let named = words.filter(|word| word.starts_with(|c: char| c.is_ascii_uppercase()));
    named
        .filter(|word| !classes.contains(word) && !KNOWN.contains(word))
        .map(str::to_owned)
        .collect()
}

#[cfg(test)]
mod tests {
    use provium_lua::Evaluated;

    use super::*;

    #[test]
    fn r008_signatures_become_annotations() {
        let entry = |name: &str, signature: &str| Entry {
            class: "VM".into(),
            name: name.into(),
            signature: signature.into(),
            doc: "Does it.".into(),
        };
        let entries = [
            entry(
                "run",
                "(cmd: string, opts?: {timeout?, env?: table}, ...): RunResult, any...",
            ),
            entry("exec", "= run"),
        ];
        let stubs = stubs_of(&entries);
        for line in [
            "---@class VM",
            "---Does it.",
            "---@param cmd string",
            "---@param opts? {timeout?: any, env?: table}",
            "---@param ... any",
            "---@return RunResult",
            "---@return any ...",
            "function VM:run(cmd, opts, ...) end",
            "function VM:exec(cmd, opts, ...) end",
            "---@class RunResult",
        ] {
            assert!(stubs.lines().any(|found| found == line), "{line}\n{stubs}");
        }
    }

    #[test]
    fn r008_the_stubs_name_every_function_and_are_lua() {
        let lua = api::lua().unwrap();
        let entries = lua.reference().unwrap();
        let stubs = stubs_of(&entries);
        for entry in &entries {
            let tail = format!("{}(", entry.name);
            let defined = |line: &str| line.starts_with("function ") && line.contains(&tail);
            assert!(stubs.lines().any(defined), "{}.{}", entry.class, entry.name);
        }
        let check = format!("assert(load([==========[{stubs}]==========])) ~= nil");
        assert_eq!(lua.evaluate(&check), Evaluated::Done(Some("true".into())));
    }
}
