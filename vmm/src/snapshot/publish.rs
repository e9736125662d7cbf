//! Files that appear whole or not at all.
//!
//! A file without a name is filled and only then given one, so a writer that is killed, or whose
//! disk is full, leaves nothing behind.

use std::ffi::CString;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// A file without a name in `dir`.
pub(super) fn nameless(dir: &Path) -> io::Result<File> {
    let opened = OpenOptions::new()
        .read(true)
        .write(true)
        .mode(0o644)
        .custom_flags(libc::O_TMPFILE | libc::O_CLOEXEC)
        .open(dir);
    match opened {
        // Not every file system has files without a name; one that loses its name at once is the
        // next best thing, but cannot be given one again.
        Err(e) if matches!(e.raw_os_error(), Some(libc::EOPNOTSUPP | libc::EISDIR)) => {
            tempfile::tempfile_in(dir)
        }
        other => other,
    }
}

/// Gives `file`, made by [`nameless`] in the same directory, the name `path`, replacing what is
/// there in one step.
pub(super) fn publish(file: &File, path: &Path) -> io::Result<()> {
    // A name that nobody has is given at once: there is no moment at which a kill leaves another.
    if link(file, path).is_ok() {
        return Ok(());
    }
    let temporary = sibling(path);
    match link(file, &temporary) {
        Ok(()) => {}
        Err(_) => copy(file, &temporary)?,
    }
    fs::rename(&temporary, path).inspect_err(|_| {
        // The rename's error is the one to tell.
        let _gone = fs::remove_file(&temporary);
    })
}

/// Makes the renaming in `path`'s directory last.
pub(super) fn sync_directory(path: &Path) -> io::Result<()> {
    File::open(directory(path))?.sync_all()
}

/// The directory in which `path` lies.
pub(super) fn directory(path: &Path) -> &Path {
    match path.parent() {
        Some(dir) if !dir.as_os_str().is_empty() => dir,
        _ => Path::new("."),
    }
}

/// Bytes that an ordinary user can still write in the file system of `dir`.
///
/// # Errors
/// The operating system's.
pub fn free_space(dir: &Path) -> io::Result<u64> {
    let path = CString::new(dir.as_os_str().as_bytes())?;
    // SAFETY: zero is a valid value for every field of this plain structure.
    let mut status: libc::statvfs = unsafe { std::mem::zeroed() };
    // SAFETY: path and structure are valid until the call returns.
    if unsafe { libc::statvfs(path.as_ptr(), &raw mut status) } != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(status.f_bavail.saturating_mul(status.f_frsize))
}

fn sibling(path: &Path) -> PathBuf {
    use std::sync::atomic::{AtomicU64, Ordering};
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let mut name = std::ffi::OsString::from(".");
    name.push(path.file_name().unwrap_or_default());
    name.push(format!(".{}-{number}", std::process::id()));
    path.with_file_name(name)
}

fn link(file: &File, to: &Path) -> io::Result<()> {
    let from = CString::new(format!("/proc/self/fd/{}", file.as_raw_fd()))?;
    let to = CString::new(to.as_os_str().as_bytes())?;
    // SAFETY: both are NUL-terminated strings that live until the call returns.
    let rc = unsafe {
        libc::linkat(
            libc::AT_FDCWD,
            from.as_ptr(),
            libc::AT_FDCWD,
            to.as_ptr(),
            libc::AT_SYMLINK_FOLLOW,
        )
    };
    if rc != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// For file systems on which a file cannot be given a name later.
fn copy(file: &File, to: &Path) -> io::Result<()> {
    use std::os::unix::fs::FileExt;
    const STEP: usize = 1 << 20;
    let copied = (|| {
        let target = OpenOptions::new().write(true).create_new(true).open(to)?;
        let len = file.metadata()?.len();
        target.set_len(len)?;
        let mut buffer = vec![0; STEP];
        for at in (0..len).step_by(STEP) {
            let count = usize::try_from(len - at).unwrap_or(STEP).min(STEP);
            file.read_exact_at(&mut buffer[..count], at)?;
            if buffer[..count].iter().any(|b| *b != 0) {
                target.write_all_at(&buffer[..count], at)?;
            }
        }
        target.sync_all()
    })();
    copied.inspect_err(|_| {
        // The copying's error is the one to tell.
        let _gone = fs::remove_file(to);
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn a_file_appears_whole_and_replaces_what_was_there() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.snap");
        fs::write(&path, "old").unwrap();
        let mut file = nameless(dir.path()).unwrap();
        file.write_all(b"new").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"old");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
        publish(&file, &path).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"new");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
        sync_directory(&path).unwrap();
    }

    #[test]
    fn a_failed_publication_leaves_nothing_behind() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("taken");
        fs::create_dir(&path).unwrap();
        fs::write(path.join("x"), "").unwrap();
        let file = nameless(dir.path()).unwrap();
        assert!(publish(&file, &path).is_err());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn free_space_is_that_of_the_directory() {
        let dir = tempfile::tempdir().unwrap();
        assert!(free_space(dir.path()).unwrap() > 0);
        let error = free_space(&dir.path().join("absent")).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
        // A file system that has no room at all.
        assert_eq!(free_space(Path::new("/proc")).unwrap(), 0);
    }

    #[test]
    fn a_copy_has_the_same_bytes() {
        let dir = tempfile::tempdir().unwrap();
        let mut file = nameless(dir.path()).unwrap();
        file.set_len(3 << 20).unwrap();
        file.write_all(b"start").unwrap();
        let to = dir.path().join("copy");
        copy(&file, &to).unwrap();
        let bytes = fs::read(&to).unwrap();
        assert_eq!((bytes.len(), &bytes[..6]), (3 << 20, &b"start\0"[..]));
    }
}
