//! Fetching Debian packages as an ordinary user: apt with a private state.
//!
//! apt's own programs do the work that must be right (mirrors, proxies, signatures), but on a state directory of our
//! own: no root, nothing of the host's package database is read or changed. Sources and keyrings are the host's,
//! reduced to Debian's archives; a host without any gets the official archive.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::GuestError;

/// A private apt.
pub(super) struct Apt {
    dir: PathBuf,
}

/// A package to download, as apt resolved it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Package {
    /// `busybox-static_1%3a1.35.0-4_amd64.deb`.
    pub(super) file: String,
    pub(super) size: u64,
    /// `SHA256:...` from the signed lists.
    pub(super) hash: String,
}

impl Package {
    pub(super) fn name(&self) -> &str {
        self.file.split('_').next().unwrap_or(&self.file)
    }

    /// Name and version; the file name carries the version's epoch escaped.
    pub(super) fn title(&self) -> String {
        let mut parts = self.file.split('_');
        let name = parts.next().unwrap_or_default();
        format!(
            "{name} {}",
            parts.next().unwrap_or_default().replace("%3a", ":")
        )
    }
}

/// Used when the host has no Debian source of its own.
const OFFICIAL: &str = "Types: deb\nURIs: http://deb.debian.org/debian\n\
    Suites: bookworm bookworm-updates\nComponents: main\n\
    Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg\n\n\
    Types: deb\nURIs: http://deb.debian.org/debian-security\nSuites: bookworm-security\n\
    Components: main\nSigned-By: /usr/share/keyrings/debian-archive-keyring.gpg\n";

/// Settings of the host that the private apt keeps: how to reach the archive.
const KEPT_SETTINGS: [&str; 6] = [
    "Acquire::http",
    "Acquire::https",
    "Acquire::Check",
    "Acquire::ForceIPv",
    "Acquire::Retries",
    "Acquire::proxy",
];

impl Apt {
    /// Sets the private state up in `dir`, which must exist.
    pub(super) fn new(dir: &Path) -> Result<Self, GuestError> {
        let apt = Self {
            dir: dir.to_owned(),
        };
        for sub in ["lists/partial", "archives/partial", "sources", "parts"] {
            let path = dir.join(sub);
            std::fs::create_dir_all(&path).map_err(|source| GuestError::write(&path, source))?;
        }
        apt.put("status", "")?;
        apt.put(
            "sources/debian.sources",
            &host_sources(Path::new("/etc/apt")),
        )?;
        apt.put("apt.conf", &apt.settings()?)?;
        Ok(apt)
    }

    fn put(&self, name: &str, text: &str) -> Result<(), GuestError> {
        let path = self.dir.join(name);
        std::fs::write(&path, text).map_err(|source| GuestError::write(&path, source))
    }

    fn settings(&self) -> Result<String, GuestError> {
        let dir = self.dir.display();
        let mut text = format!(
            "Dir::State \"{dir}\";\nDir::State::lists \"{dir}/lists/\";\n\
             Dir::State::status \"{dir}/status\";\nDir::Cache \"{dir}\";\n\
             Dir::Cache::archives \"{dir}/archives/\";\nDir::Cache::pkgcache \"\";\n\
             Dir::Cache::srcpkgcache \"\";\nDir::Etc::main \"/dev/null\";\n\
             Dir::Etc::parts \"{dir}/parts\";\nDir::Etc::sourcelist \"/dev/null\";\n\
             Dir::Etc::sourceparts \"{dir}/sources\";\nDir::Etc::preferences \"/dev/null\";\n\
             Dir::Etc::preferencesparts \"{dir}/parts\";\nAPT::Architecture \"amd64\";\n\
             APT::Architectures \"amd64\";\nAPT::Install-Recommends \"false\";\n\
             APT::Sandbox::User \"root\";\nAcquire::Languages \"none\";\nAcquire::Retries \"2\";\n\
             Acquire::http::Timeout \"30\";\nAcquire::https::Timeout \"30\";\n"
        );
        let dump = run(Command::new("apt-config").arg("dump"))?;
        for line in dump.lines() {
            if KEPT_SETTINGS
                .iter()
                .any(|kept| starts_with_ignoring_case(line, kept))
            {
                text.push_str(line);
                text.push('\n');
            }
        }
        Ok(text)
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.env("APT_CONFIG", self.dir.join("apt.conf"));
        command.env("LC_ALL", "C").env_remove("DEBIAN_FRONTEND");
        command
    }

    /// Fetches the package lists.
    pub(super) fn update(&self, percent: impl FnMut(f32)) -> Result<(), GuestError> {
        let mut command = self.command("apt-get");
        command.args([
            "-qq",
            "-o",
            "APT::Status-Fd=1",
            "-o",
            "APT::Update::Error-Mode=any",
            "update",
        ]);
        run_with_status(&mut command, percent)
    }

    /// The packages that `package` depends on directly.
    pub(super) fn depends(&self, package: &str) -> Result<Vec<String>, GuestError> {
        let mut command = self.command("apt-cache");
        command.args(["depends", "--no-recommends", "--no-suggests", package]);
        let text = run(&mut command)?;
        let names = text
            .lines()
            .filter_map(|line| line.trim().strip_prefix("Depends: "));
        Ok(names.map(str::to_owned).collect())
    }

    /// What downloading exactly `names` means.
    pub(super) fn resolve(&self, names: &[String]) -> Result<Vec<Package>, GuestError> {
        let mut command = self.command("apt-get");
        command
            .args(["-qq", "--print-uris", "download"])
            .args(names);
        Ok(parse_uris(&run(&mut command)?))
    }

    /// What installing `names` on an empty system means.
    pub(super) fn resolve_closure(&self, names: &[String]) -> Result<Vec<Package>, GuestError> {
        let mut command = self.command("apt-get");
        command
            .args(["-qq", "-y", "--print-uris", "install"])
            .args(names);
        Ok(parse_uris(&run(&mut command)?))
    }

    /// Downloads packages into a folder of the private state and returns it; apt checks their hashes.
    pub(super) fn download(
        &self,
        packages: &[Package],
        percent: impl FnMut(f32),
    ) -> Result<PathBuf, GuestError> {
        let dir = self.dir.join("packages");
        std::fs::create_dir_all(&dir).map_err(|source| GuestError::write(&dir, source))?;
        let mut command = self.command("apt-get");
        command
            .current_dir(&dir)
            .args(["-qq", "-o", "APT::Status-Fd=1", "download"]);
        command.args(packages.iter().map(Package::name));
        run_with_status(&mut command, percent)?;
        match packages
            .iter()
            .find(|package| !dir.join(&package.file).is_file())
        {
            None => Ok(dir),
            Some(package) => Err(GuestError::Apt {
                command: "apt-get download".to_owned(),
                output: format!("{} did not arrive", package.file),
            }),
        }
    }
}

/// Lines `'URI' FILE SIZE HASH` of `--print-uris`.
fn parse_uris(text: &str) -> Vec<Package> {
    let package = |line: &str| {
        let mut fields = line.strip_prefix('\'')?.split_once("' ")?.1.split(' ');
        Some(Package {
            file: fields.next()?.to_owned(),
            size: fields.next()?.parse().ok()?,
            hash: fields.next()?.to_owned(),
        })
    };
    text.lines().filter_map(package).collect()
}

fn starts_with_ignoring_case(line: &str, prefix: &str) -> bool {
    line.get(..prefix.len())
        .is_some_and(|start| start.eq_ignore_ascii_case(prefix))
}

fn run(command: &mut Command) -> Result<String, GuestError> {
    let output = command
        .stdin(Stdio::null())
        .output()
        .map_err(|source| not_started(command, source))?;
    if !output.status.success() {
        return Err(failed(command, &output.stderr));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Runs a command whose standard output carries apt's status lines, `dlstatus:N:PERCENT:TEXT`.
fn run_with_status(command: &mut Command, mut percent: impl FnMut(f32)) -> Result<(), GuestError> {
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command
        .spawn()
        .map_err(|source| not_started(command, source))?;
    // Two pipes: the error one is read on a thread of its own, so that neither can fill up.
    let errors = child.stderr.take().map(|mut pipe| {
        std::thread::spawn(move || {
            let mut text = Vec::new();
            let _partial_is_fine = std::io::Read::read_to_end(&mut pipe, &mut text);
            text
        })
    });
    if let Some(pipe) = child.stdout.take() {
        for line in BufReader::new(pipe).split(b'\n').map_while(Result::ok) {
            let line = String::from_utf8_lossy(&line);
            let field = line
                .strip_prefix("dlstatus:")
                .and_then(|rest| rest.split(':').nth(1));
            if let Some(value) = field.and_then(|text| text.parse().ok()) {
                percent(value);
            }
        }
    }
    let status = child
        .wait()
        .map_err(|source| not_started(command, source))?;
    let errors = errors
        .and_then(|thread| thread.join().ok())
        .unwrap_or_default();
    if status.success() {
        Ok(())
    } else {
        Err(failed(command, &errors))
    }
}

fn describe(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    let words: Vec<_> = words.map(|word| word.to_string_lossy()).collect();
    words.join(" ")
}

fn not_started(command: &Command, source: std::io::Error) -> GuestError {
    GuestError::Apt {
        command: describe(command),
        output: source.to_string(),
    }
}

fn failed(command: &Command, errors: &[u8]) -> GuestError {
    let text = String::from_utf8_lossy(errors);
    let lines: Vec<&str> = text.lines().filter(|line| line.starts_with("E:")).collect();
    let output = if lines.is_empty() {
        text.trim().to_owned()
    } else {
        lines.join("; ")
    };
    GuestError::Apt {
        command: describe(command),
        output,
    }
}

/// The host's sources reduced to Debian's archives, in the deb822 form; the official archive if there is none.
fn host_sources(etc: &Path) -> String {
    let mut found = String::new();
    let mut files = vec![etc.join("sources.list")];
    if let Ok(entries) = std::fs::read_dir(etc.join("sources.list.d")) {
        let mut more: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
        more.sort();
        files.extend(more);
    }
    for file in files {
        let Ok(text) = std::fs::read_to_string(&file) else {
            continue;
        };
        match file.extension().and_then(|extension| extension.to_str()) {
            Some("list") => found.extend(text.lines().filter_map(from_one_line)),
            Some("sources") => {
                found.extend(stanzas(&text).filter(|stanza| is_debian_stanza(stanza)))
            }
            _ => {}
        }
    }
    if found.is_empty() {
        OFFICIAL.to_owned()
    } else {
        found
    }
}

/// The paragraphs of a deb822 file, each ending in a blank line.
fn stanzas(text: &str) -> impl Iterator<Item = String> {
    let lines = text
        .lines()
        .filter(|line| !line.starts_with('#'))
        .collect::<Vec<_>>();
    let paragraphs = lines
        .split(|line| line.trim().is_empty())
        .map(|lines| lines.join("\n"));
    paragraphs
        .filter(|stanza| !stanza.is_empty())
        .map(|stanza| stanza + "\n\n")
        .collect::<Vec<_>>()
        .into_iter()
}

fn is_debian_stanza(stanza: &str) -> bool {
    let field = |name: &str| {
        stanza.lines().find_map(|line| {
            let (key, value) = line.split_once(':')?;
            key.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    };
    let disabled = field("Enabled").is_some_and(|value| value.eq_ignore_ascii_case("no"));
    let binary =
        field("Types").is_some_and(|types| types.split_whitespace().any(|kind| kind == "deb"));
    binary
        && !disabled
        && field("URIs").is_some_and(|uris| uris.split_whitespace().any(is_debian_archive))
}

/// `deb [signed-by=KEY] URI SUITE COMPONENT...` as a stanza, if it is of Debian.
fn from_one_line(line: &str) -> Option<String> {
    let rest = line
        .trim()
        .strip_prefix("deb")?
        .strip_prefix([' ', '\t'])?
        .trim_start();
    let (options, rest) = match rest.strip_prefix('[') {
        Some(rest) => rest.split_once(']')?,
        None => ("", rest),
    };
    let mut words = rest.split('#').next()?.split_whitespace();
    let (uri, suite) = (words.next()?, words.next()?);
    if !is_debian_archive(uri) {
        return None;
    }
    let components: Vec<&str> = words.collect();
    let key = options
        .split_whitespace()
        .find_map(|option| option.strip_prefix("signed-by="));
    let signed = key.map_or(String::new(), |key| format!("Signed-By: {key}\n"));
    let components = components.join(" ");
    Some(format!(
        "Types: deb\nURIs: {uri}\nSuites: {suite}\nComponents: {components}\n{signed}\n"
    ))
}

/// A mirror of Debian serves it under `/debian` or `/debian-security`.
fn is_debian_archive(uri: &str) -> bool {
    let path = uri
        .trim_end_matches('/')
        .rsplit('/')
        .next()
        .unwrap_or_default();
    path == "debian" || path == "debian-security"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uris_are_parsed() {
        let text = "'http://h/p/b_1%3a1_amd64.deb' b_1%3a1_amd64.deb 928188 SHA256:3d3f\nnoise\n";
        let packages = parse_uris(text);
        assert_eq!(packages.len(), 1);
        assert_eq!((packages[0].name(), packages[0].size), ("b", 928_188));
        assert_eq!(packages[0].hash, "SHA256:3d3f");
    }

    #[test]
    fn only_debian_sources_of_the_host_are_used() {
        let etc = tempfile::tempdir().unwrap();
        let parts = etc.path().join("sources.list.d");
        std::fs::create_dir_all(&parts).unwrap();
        std::fs::write(
            etc.path().join("sources.list"),
            "# deb http://x/debian a main\ndeb [arch=amd64 signed-by=/k.gpg] http://m.org/debian/ trixie main contrib\n\
             deb-src http://m.org/debian trixie main\ndeb https://other.org/apt stable main\n",
        )
        .unwrap();
        std::fs::write(
            parts.join("d.sources"),
            "Types: deb\n# comment\nURIs: http://d.org/debian-security\nSuites: s\nComponents: main\n\n\
             Types: deb\nURIs: https://n.org/node\nSuites: x\n\n\
             Enabled: no\nTypes: deb\nURIs: http://off.org/debian\nSuites: y\n",
        )
        .unwrap();
        std::fs::write(parts.join("e.disabled"), "deb http://z.org/debian q main\n").unwrap();
        assert_eq!(
            host_sources(etc.path()),
            "Types: deb\nURIs: http://m.org/debian/\nSuites: trixie\nComponents: main contrib\n\
             Signed-By: /k.gpg\n\nTypes: deb\nURIs: http://d.org/debian-security\nSuites: s\n\
             Components: main\n\n"
        );
    }

    #[test]
    fn a_host_without_debian_sources_uses_the_official_archive() {
        let etc = tempfile::tempdir().unwrap();
        assert!(host_sources(etc.path()).contains("deb.debian.org"));
    }

    #[test]
    fn a_failing_command_is_named_with_its_errors() {
        let mut command = Command::new("sh");
        command.args(["-c", "echo W: warned >&2; echo E: no route >&2; exit 100"]);
        let error = run(&mut command).unwrap_err().to_string();
        assert!(error.ends_with("failed: E: no route"), "{error}");
        let error = run(&mut Command::new("/nonexistent/apt-get"))
            .unwrap_err()
            .to_string();
        assert!(error.contains("/nonexistent/apt-get"), "{error}");
    }
}
