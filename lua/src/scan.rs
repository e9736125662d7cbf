//! What can be known of a test file without running it: its literal claim, the fixtures and
//! modules that it names (cli-and-config ).
//!
//! The source is cut into tokens, so comments, strings and nesting cannot mislead; it is not
//! parsed, so a file with a syntax error gives what stands before it makes sense.

use provium_lab::units;
use provium_protocol::Amount;

/// What a source names literally.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Scan {
    /// The first `provium:claim{...}` at file level whose fields are all literals.
    pub claim: Option<Amount>,
    /// Arguments of `vm_fixture` and `lab_fixture`, each once, in the order of first use.
    pub fixtures: Vec<String>,
    /// Arguments of `require`.
    pub modules: Vec<String>,
    /// Arguments of `dofile` and `loadfile`.
    pub files: Vec<String>,
}

/// Looks through a source.
#[must_use]
pub fn scan(source: &[u8]) -> Scan {
    let text = String::from_utf8_lossy(source);
    let tokens = tokens(&text);
    let mut scan = Scan::default();
    let mut depth = 0_usize;
    for (at, token) in tokens.iter().enumerate() {
        let Token::Name(name) = token else { continue };
        let rest = &tokens[at + 1..];
        match *name {
            "function" | "do" | "if" | "repeat" => depth += 1,
            "end" | "until" => depth = depth.saturating_sub(1),
            "vm_fixture" | "lab_fixture" => note(&mut scan.fixtures, argument(rest)),
            "require" => note(&mut scan.modules, argument(rest)),
            "dofile" | "loadfile" => note(&mut scan.files, argument(rest)),
            "provium" if depth == 0 && scan.claim.is_none() => scan.claim = claim(rest),
            _ => {}
        }
    }
    scan
}

fn note(list: &mut Vec<String>, text: Option<&str>) {
    if let Some(text) = text
        && !list.iter().any(|known| known == text)
    {
        list.push(text.to_owned());
    }
}

/// The plain string that a call is made with: `("x")`, `"x"`.
fn argument<'a>(tokens: &'a [Token<'_>]) -> Option<&'a str> {
    match tokens {
        [
            Token::Symbol('('),
            Token::Text(text),
            Token::Symbol(')' | ','),
            ..,
        ] => Some(text),
        [Token::Text(text), ..] => Some(text),
        _ => None,
    }
}

/// `:claim { memory = LITERAL, cpus = LITERAL }` behind `provium`.
fn claim(tokens: &[Token<'_>]) -> Option<Amount> {
    let fields = match tokens {
        [
            Token::Symbol(':'),
            Token::Name("claim"),
            Token::Symbol('{'),
            fields @ ..,
        ] => fields,
        [
            Token::Symbol(':'),
            Token::Name("claim"),
            Token::Symbol('('),
            Token::Symbol('{'),
            fields @ ..,
        ] => fields,
        _ => return None,
    };
    let mut amount = Amount::default();
    let mut fields = fields;
    loop {
        match fields {
            [Token::Symbol('}'), ..] => return Some(amount),
            [
                Token::Name(name),
                Token::Symbol('='),
                value,
                Token::Symbol(end @ (',' | ';' | '}')),
                ..,
            ] => {
                match *name {
                    "memory" => amount.memory_bytes = size(value)?,
                    "cpus" => amount.cpus = integer(value)?.try_into().ok()?,
                    _ => return None,
                }
                fields = &fields[if *end == '}' { 3 } else { 4 }..];
            }
            _ => return None,
        }
    }
}

fn size(token: &Token<'_>) -> Option<u64> {
    match token {
        Token::Text(text) => units::parse_size(text).ok(),
        _ => units::size_from_int(integer(token)?).ok(),
    }
}

fn integer(token: &Token<'_>) -> Option<i64> {
    let Token::Number(text) = token else {
        return None;
    };
    match text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        Some(digits) => i64::from_str_radix(digits, 16).ok(),
        None => text.parse().ok(),
    }
}

/// A piece of a source.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Token<'a> {
    Name(&'a str),
    Number(&'a str),
    /// A string's content; nothing of it is lost unless it holds exotic escapes.
    Text(String),
    Symbol(char),
}

/// Cuts a source into tokens; comments are left out.
fn tokens(source: &str) -> Vec<Token<'_>> {
    let mut rest = source.strip_prefix("#").map_or(source, |line| {
        line.find('\n').map_or("", |end| &line[end..])
    });
    let mut tokens = Vec::new();
    while let Some(first) = rest.chars().next() {
        if first.is_whitespace() {
            rest = &rest[first.len_utf8()..];
        } else if let Some(comment) = rest.strip_prefix("--") {
            rest = match long_bracket(comment) {
                Some((_, after)) => after,
                None => comment.find('\n').map_or("", |end| &comment[end..]),
            };
        } else if let Some((text, after)) = long_bracket(rest) {
            tokens.push(Token::Text(text.to_owned()));
            rest = after;
        } else if first == '"' || first == '\'' {
            let (text, after) = quoted(rest, first);
            tokens.push(Token::Text(text));
            rest = after;
        } else if first.is_ascii_alphabetic() || first == '_' {
            let end = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_');
            let (name, after) = rest.split_at(end.unwrap_or(rest.len()));
            tokens.push(Token::Name(name));
            rest = after;
        } else if first.is_ascii_digit() {
            let end = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '.');
            let (number, after) = rest.split_at(end.unwrap_or(rest.len()));
            tokens.push(Token::Number(number));
            rest = after;
        } else {
            tokens.push(Token::Symbol(first));
            rest = &rest[first.len_utf8()..];
        }
    }
    tokens
}

/// `[[...]]` or `[=[...]=]` at the start of `rest`: content and what follows.
fn long_bracket(rest: &str) -> Option<(&str, &str)> {
    let inner = rest.strip_prefix('[')?;
    let level = inner.len() - inner.trim_start_matches('=').len();
    let content = inner[level..].strip_prefix('[')?;
    let close = format!("]{}]", "=".repeat(level));
    match content.find(&close) {
        Some(end) => Some((
            content[..end].trim_start_matches(['\r', '\n']),
            &content[end + close.len()..],
        )),
        None => Some((content, "")),
    }
}

/// A quoted string at the start of `rest`: content and what follows.
fn quoted(rest: &str, quote: char) -> (String, &str) {
    let mut text = String::new();
    let mut chars = rest.char_indices().skip(1);
    while let Some((at, c)) = chars.next() {
        match c {
            '\\' => match chars.next() {
                Some((_, 'n')) => text.push('\n'),
                Some((_, 't')) => text.push('\t'),
                Some((_, escaped)) => text.push(escaped),
                None => break,
            },
            // A string that is not closed ends with its line.
            '\n' => return (text, &rest[at..]),
            _ if c == quote => return (text, &rest[at + c.len_utf8()..]),
            _ => text.push(c),
        }
    }
    (text, "")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claim_of(source: &str) -> Option<(u64, u32)> {
        let claim = scan(source.as_bytes()).claim?;
        Some((claim.memory_bytes, claim.cpus))
    }

    #[test]
    fn r108_a_literal_claim_at_file_level_is_found() {
        for source in [
            "provium:claim{memory='2G', cpus=4}",
            "local x = 1\nprovium:claim({ cpus = 4; memory = \"2G\", })",
            "-- provium:claim{cpus=1}\nprovium:claim{memory=2147483648, cpus=0x4}",
            "do local f = function() end end\nprovium:claim{memory=[[2G]], cpus=4}",
            "for i = 1, 3 do if i then else end end while false do end repeat until true \
             provium:claim{memory='2048M', cpus=4}",
        ] {
            assert_eq!(claim_of(source), Some((2 << 30, 4)), "{source}");
        }
        assert_eq!(claim_of("provium:claim{}"), Some((0, 0)));
    }

    #[test]
    fn r108_any_other_claim_is_not() {
        for source in [
            "test('x', function(t) provium:claim{cpus=1} end)",
            "if x then provium:claim{cpus=1} end",
            "provium:claim{memory=size}",
            "provium:claim{memory='a lot'}",
            "provium:claim(amount)",
            "--[==[ provium:claim{cpus=1} ]==]",
            "local s = 'provium:claim{cpus=1}'",
            "local s = [[\nprovium:claim{cpus=1}\n]]",
            "provium:claim{cpus=-1}",
            "provium:claim{cpus=",
        ] {
            assert_eq!(claim_of(source), None, "{source}");
        }
    }

    #[test]
    fn e012_fixtures_come_in_the_order_of_first_use() {
        let scan = scan(
            b"local a = provium:vm_fixture('db/up') provium:lab_fixture \"net\"\n\
              provium:vm_fixture(\"db/up\", {}) provium:vm_fixture('x' .. y) require 'lib.a'\n\
              dofile('b.lua')",
        );
        assert_eq!(scan.fixtures, ["db/up", "net"]);
        assert_eq!(scan.modules, ["lib.a"]);
        assert_eq!(scan.files, ["b.lua"]);
    }

    #[test]
    fn odd_sources_are_survived() {
        for source in [
            &b"'unclosed\nprovium:claim{cpus=1}"[..],
            b"[==[",
            b"\xff\xfe\"",
            b"'\\",
            b"#!",
        ] {
            let _ = scan(source);
        }
        assert_eq!(claim_of("'unclosed\nprovium:claim{cpus=1}"), Some((0, 1)));
        assert_eq!(
            claim_of("#!/usr/bin/env provium\nprovium:claim{cpus=1}"),
            Some((0, 1))
        );
    }
}
