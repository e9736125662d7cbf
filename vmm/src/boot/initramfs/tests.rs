//! Archives written, indexed, unpacked, and written over each other.

use super::*;
use crate::boot::cpio;
use crate::boot::decompress::{
    Format,
    tests::{SUPPORTED, pack},
};
use proptest::prelude::*;
use std::collections::BTreeMap;

fn paths(bytes: &[u8]) -> Vec<(String, u32)> {
    cpio::Reader::new(bytes)
        .map(Result::unwrap)
        .map(|entry| (String::from_utf8(entry.name.to_vec()).unwrap(), entry.mode))
        .collect()
}

fn names(bytes: &[u8]) -> Vec<String> {
    paths(bytes).into_iter().map(|(name, _)| name).collect()
}

fn index(bytes: &[u8]) -> Index {
    Index::of(&Unpacked::new(bytes).unwrap()).unwrap()
}

/// A merged-`/usr` image.
fn merged_usr() -> Archive {
    let mut image = Archive::new();
    image.symlink("/sbin", "usr/sbin").unwrap();
    image.directory("/usr/sbin", 0o755).unwrap();
    image.directory("/tmp", 0o1777).unwrap();
    image.file("/init", 0o755, b"#!/bin/sh".to_vec()).unwrap();
    image
}

#[test]
fn every_kind_of_node_is_written_parents_first() {
    let mut archive = Archive::new();
    archive
        .file("/a/b/file", 0o644, b"content".to_vec())
        .unwrap();
    archive.symlink("a/link", "b/file").unwrap();
    archive.directory("//a/./dir/", 0o1777).unwrap();
    archive
        .character_device("/dev/console", 0o600, (5, 1))
        .unwrap();
    archive.block_device("/dev/vda", 0o660, (254, 0)).unwrap();
    let bytes = archive.finish(&Index::default()).unwrap();
    let expected = [
        ("a", 0o040_755),
        ("a/b", 0o040_755),
        ("a/b/file", 0o100_644),
        ("a/dir", 0o041_777),
        ("a/link", 0o120_777),
        ("dev", 0o040_755),
        ("dev/console", 0o020_600),
        ("dev/vda", 0o060_660),
    ];
    assert_eq!(
        paths(&bytes),
        expected.map(|(name, mode)| (name.to_owned(), mode))
    );
}

#[test]
fn equal_content_gives_equal_bytes_whatever_the_order() {
    let build = |order: &[&str]| {
        let mut archive = Archive::new();
        for path in order {
            archive.file(path, 0o644, path.as_bytes().to_vec()).unwrap();
        }
        archive.finish(&Index::default()).unwrap()
    };
    assert_eq!(
        build(&["/x/1", "/x/2", "/y"]),
        build(&["/y", "/x/2", "/x/1"])
    );
}

#[test]
fn appended_files_follow_links_and_leave_directories_alone() {
    let image = merged_usr().finish(&Index::default()).unwrap();
    let mut archive = Archive::new();
    archive
        .file("/sbin/agent", 0o755, b"agent".to_vec())
        .unwrap();
    archive
        .file("/tmp/input", 0o644, b"input".to_vec())
        .unwrap();
    archive
        .file("/new/dir/file", 0o644, b"file".to_vec())
        .unwrap();
    archive.directory("/sbin", 0o700).unwrap();
    let bytes = archive.finish(&index(&image)).unwrap();
    assert_eq!(
        names(&bytes),
        [
            "new",
            "new/dir",
            "new/dir/file",
            "tmp/input",
            "usr/sbin",
            "usr/sbin/agent"
        ]
    );
}

#[test]
fn l244_a_later_file_replaces_an_earlier_one_or_a_link() {
    let mut image = merged_usr();
    image.symlink("/etc/conf", "../init").unwrap();
    let image = image.finish(&Index::default()).unwrap();
    let mut archive = Archive::new();
    archive.file("/init", 0o755, b"one".to_vec()).unwrap();
    archive.file("/init", 0o755, b"two".to_vec()).unwrap();
    archive.file("/etc/conf", 0o644, b"x".to_vec()).unwrap();
    let bytes = archive.finish(&index(&image)).unwrap();
    assert_eq!(names(&bytes), ["etc/conf", "init"]);
    let init = cpio::Reader::new(&bytes).nth(1).unwrap().unwrap();
    assert_eq!(init.content, b"two");
}

#[test]
fn links_may_be_absolute_climb_and_chain_but_not_loop() {
    let mut image = Archive::new();
    image.symlink("/a/up", "../b").unwrap();
    image.symlink("/b", "/c").unwrap();
    image.symlink("/loop", "loop").unwrap();
    let image = index(&image.finish(&Index::default()).unwrap());
    let mut archive = Archive::new();
    archive.file("/a/up/file", 0o644, vec![]).unwrap();
    assert_eq!(names(&archive.finish(&image).unwrap()), ["c", "c/file"]);
    let mut archive = Archive::new();
    archive.file("/loop/file", 0o644, vec![]).unwrap();
    let error = archive.finish(&image).unwrap_err();
    assert!(
        matches!(error, InitramfsError::NotADirectory(..)),
        "{error}"
    );
}

#[test]
fn impossible_paths_are_refused_by_name() {
    let mut archive = Archive::new();
    for path in ["", "/", "a/../b", "a\0b", &"x".repeat(5000)] {
        let error = archive.file(path, 0o644, vec![]).unwrap_err();
        assert!(matches!(error, InitramfsError::BadPath(..)), "{error}");
    }
    archive.file("/init/below", 0o644, vec![]).unwrap();
    let image = index(&merged_usr().finish(&Index::default()).unwrap());
    let error = archive.finish(&image).unwrap_err().to_string();
    assert!(
        error.contains("init/below") && error.contains("not a directory"),
        "{error}"
    );
    let mut archive = Archive::new();
    archive.file("/tmp", 0o644, vec![]).unwrap();
    let error = archive.finish(&image).unwrap_err();
    assert!(matches!(error, InitramfsError::IsADirectory(..)), "{error}");
}

#[test]
fn index_sees_through_compression_padding_and_several_archives() {
    let mut first = Archive::new();
    first.file("/microcode", 0o644, vec![1; 1000]).unwrap();
    let first = first.finish(&Index::default()).unwrap();
    let second = merged_usr().finish(&Index::default()).unwrap();
    for format in SUPPORTED {
        let file = [&first[..], &[0; 512], &pack(format, &second), &[0; 8]].concat();
        let unpacked = Unpacked::new(&file).unwrap();
        assert_eq!(unpacked.archives().count(), 2, "{}", format.name());
        assert_eq!(unpacked.size(), (first.len() + second.len()) as u64);
        let index = Index::of(&unpacked).unwrap();
        for path in ["/microcode", "/init", "/usr/sbin", "/sbin"] {
            assert!(index.contains(path), "{path}");
        }
        assert!(!index.contains("/sbin/init"));
    }
}

#[test]
fn a_compressed_stream_may_hold_several_archives_but_no_other_stream() {
    let archive = merged_usr().finish(&Index::default()).unwrap();
    let two = [&archive[..], &[0; 8], &archive].concat();
    let unpacked_two = pack(Format::Zstd, &two);
    assert_eq!(Unpacked::new(&unpacked_two).unwrap().archives().count(), 2);
    let nested = pack(Format::Zstd, &pack(Format::Gzip, &archive));
    let error = Unpacked::new(&nested).unwrap_err();
    assert!(
        matches!(error, InitramfsError::Unreadable { at: 0, .. }),
        "{error}"
    );
}

#[test]
fn damaged_images_are_refused_with_the_place() {
    let image = merged_usr().finish(&Index::default()).unwrap();
    let error = Unpacked::new(&image[..image.len() - 200]).unwrap_err();
    assert!(
        matches!(error, InitramfsError::Unreadable { at: 0, .. }),
        "{error}"
    );
    let packed = pack(Format::Xz, &image);
    let file = [&image[..], &packed[..packed.len() / 2]].concat();
    let error = Unpacked::new(&file).unwrap_err();
    assert!(matches!(error, InitramfsError::Compressed { at, .. } if at == image.len()));
    assert!(Unpacked::new(b"garbage").is_err());
    assert_eq!(Unpacked::new(b"").unwrap().size(), 0);
}

/// The reference implementation agrees, where it is installed.
#[test]
fn cpio_lists_the_same_names() {
    let image = merged_usr().finish(&Index::default()).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("image");
    std::fs::write(&path, &image).unwrap();
    let command = std::process::Command::new("cpio")
        .args(["-t", "--quiet"])
        .stdin(std::fs::File::open(&path).unwrap())
        .output();
    let output = match command {
        Ok(output) => output,
        Err(error) => return eprintln!("skipped: cannot run cpio: {error}"),
    };
    assert!(output.status.success());
    let listed = String::from_utf8(output.stdout).unwrap();
    assert_eq!(listed.lines().collect::<Vec<_>>(), names(&image));
}

proptest! {
    #[test]
    fn files_come_back_as_added(
        files in proptest::collection::btree_map(
            "[a-c]/[a-z]{1,8}",
            (0u32..0o10000, proptest::collection::vec(any::<u8>(), 0..50)),
            0..12,
        ),
    ) {
        let mut archive = Archive::new();
        for (path, (mode, content)) in &files {
            archive.file(path, *mode, content.clone()).unwrap();
        }
        let bytes = archive.finish(&Index::default()).unwrap();
        let back: BTreeMap<_, _> = cpio::Reader::new(&bytes)
            .map(Result::unwrap)
            .filter(|entry| entry.mode & cpio::TYPE_MASK == cpio::TYPE_FILE)
            .map(|entry| {
                let name = String::from_utf8(entry.name.to_vec()).unwrap();
                (name, (entry.mode & 0o7777, entry.content.to_vec()))
            })
            .collect();
        prop_assert_eq!(back, files);
    }

    #[test]
    fn hostile_images_never_panic(
        format in proptest::sample::select(&SUPPORTED[..]),
        patches in proptest::collection::vec((any::<proptest::sample::Index>(), any::<u8>()), 0..6),
        cut in any::<proptest::sample::Index>(),
    ) {
        let plain = merged_usr().finish(&Index::default()).unwrap();
        let mut file = [&plain[..], &pack(format, &plain)].concat();
        for (at, byte) in patches {
            let at = at.index(file.len());
            file[at] = byte;
        }
        file.truncate(cut.index(file.len()));
        if let Ok(unpacked) = Unpacked::new(&file) {
            let _ = Index::of(&unpacked);
        }
    }
}
