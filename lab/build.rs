//! Builds the guest agent as a static binary, to be embedded (`src/overlay.rs`).
//!
//! The agent is its own little build with its own target directory: it is linked statically and with the guest's
//! flags, whatever this crate is built with.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

const TARGET: &str = "x86_64-unknown-linux-gnu";

fn main() {
    let manifest_dir = PathBuf::from(variable("CARGO_MANIFEST_DIR"));
    let root = manifest_dir
        .parent()
        .expect("the crate lies in the workspace")
        .to_owned();
    for path in [
        "agent/src",
        "agent/Cargo.toml",
        "protocol/src",
        "protocol/Cargo.toml",
        "Cargo.toml",
    ] {
        // Relative to this package: a target directory may serve several checkouts.
        println!("cargo::rerun-if-changed=../{path}");
    }
    println!("cargo::rerun-if-env-changed=PROVIUM_AGENT");
    let binary = match env::var_os("PROVIUM_AGENT") {
        Some(given) => PathBuf::from(given),
        None => build(&root, &PathBuf::from(variable("OUT_DIR")).join("agent")),
    };
    println!("cargo::rustc-env=PROVIUM_AGENT_BINARY={}", binary.display());
}

fn variable(name: &str) -> String {
    env::var(name).unwrap_or_else(|_| panic!("cargo sets {name}"))
}

fn build(root: &Path, target_dir: &Path) -> PathBuf {
    let mut cargo = Command::new(variable("CARGO"));
    cargo
        .current_dir(root)
        .args(["build", "--package", "provium-agent", "--profile", "agent"]);
    cargo
        .args(["--target", TARGET, "--target-dir"])
        .arg(target_dir);
    // What the outer build is told (flags, wrappers, features) is not meant for the guest's program.
    for (name, _) in env::vars_os() {
        let name = name.to_string_lossy();
        let of_outer = [
            "CARGO_ENCODED_RUSTFLAGS",
            "CARGO_BUILD_TARGET",
            "CARGO_TARGET_DIR",
            "RUSTFLAGS",
        ];
        if of_outer.contains(&&*name)
            || name.starts_with("CARGO_PROFILE_")
            || name.starts_with("CARGO_FEATURE_")
        {
            cargo.env_remove(&*name);
        }
    }
    cargo.env_remove("RUSTC_WORKSPACE_WRAPPER");
    cargo.env("RUSTFLAGS", "-C target-feature=+crt-static");
    let status = cargo
        .status()
        .expect("cargo builds this crate, so it can be started");
    assert!(status.success(), "building the guest agent failed");
    target_dir.join(TARGET).join("agent").join("provium-agent")
}
