//! What a wallet needs a C compiler for, as `cargo tree` tells it. E-cash itself must need none: blst belongs to guardians.

#![allow(clippy::unwrap_used, reason = "a test: a panic is its way to fail")]

use std::{collections::BTreeSet, process::Command};

/// What `cargo tree` prints for a crate as others depend on it: a package's name a line.
fn tree(arguments: &[&str]) -> BTreeSet<String> {
    let output = Command::new(env!("CARGO"))
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .args([
            "tree",
            "--offline",
            "--locked",
            "--no-default-features",
            "--prefix",
            "none",
            "--format",
            "{p}",
        ])
        .args(arguments)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines().filter_map(|line| line.split_whitespace().next()).map(str::to_owned).collect()
}

/// The packages whose build scripts run a C compiler.
fn compiled_by_cc(package: &[&str]) -> BTreeSet<String> {
    let mut found = tree(&[package, &["--edges", "normal,build", "--invert", "cc", "--depth", "1"]].concat());
    found.retain(|name| name != "cc" && name != "[build-dependencies]");
    found
}

fn names(of: &[&str]) -> BTreeSet<String> {
    of.iter().map(|name| (*name).to_owned()).collect()
}

const MINT: [&str; 4] = ["--package", "federation-mint", "--features", "client"];
const WALLET: [&str; 2] = ["--package", "federation-client"];

#[test]
fn wallets_do_not_link_blst() {
    for package in [&MINT[..], &WALLET[..]] {
        let packages = tree(&[package, &["--edges", "normal,build"]].concat());
        assert!(packages.contains("federation-tbs") && packages.contains("bls12_381"), "{packages:?}");
        assert!(!packages.contains("blst") && !packages.contains("blstrs"), "{packages:?}");
    }
    // Guardians do, and so does a wallet that asks for it: `cargo tree` would have shown it.
    for package in [
        &["--package", "federation-guardian"][..],
        &["--package", "federation-client", "--features", "blst"][..],
    ] {
        let packages = tree(&[package, &["--edges", "normal,build"]].concat());
        assert!(packages.contains("blst"), "{packages:?}");
    }
}

/// What remains, so that nobody adds to it unawares: signatures on secp256k1, the wallet's database, and TLS.
#[test]
fn what_still_needs_a_c_compiler() {
    assert_eq!(compiled_by_cc(&MINT), names(&["secp256k1-sys"]));
    assert_eq!(compiled_by_cc(&WALLET), names(&["libsqlite3-sys", "ring", "secp256k1-sys"]));
}
