//! Which crate may use which: `cargo metadata` against the arrows of `docs/architecture.md`, and no others.
//!
//! kernels → nothing · protocol → nothing of ours · compute → protocol, kernels · store → protocol · node → protocol, compute, store ·
//! bootstrap → protocol · tests → all.

#![allow(clippy::unwrap_used)] // a test may panic; its helpers are outside of #[test]

use std::collections::{BTreeMap, BTreeSet};

use cargo_metadata::{DependencyKind, MetadataCommand};

const ARROWS: &[(&str, &[&str])] = &[
    ("tops-kernels", &[]),
    ("tops-protocol", &[]),
    ("tops-compute", &["tops-protocol", "tops-kernels"]),
    ("tops-store", &["tops-protocol"]),
    ("tops-node", &["tops-protocol", "tops-compute", "tops-store"]),
    ("tops-bootstrap", &["tops-protocol"]),
    ("tops-tests", &["tops-protocol", "tops-kernels", "tops-compute", "tops-store", "tops-node", "tops-bootstrap"]),
];

/// Crates with no dependency at all besides what builds and tests them.
const ALONE: &[&str] = &["tops-kernels"];

fn workspace() -> cargo_metadata::Metadata {
    MetadataCommand::new().manifest_path(concat!(env!("CARGO_MANIFEST_DIR"), "/../Cargo.toml")).no_deps().exec().unwrap()
}

#[test]
fn only_these_arrows_exist() {
    let allowed: BTreeMap<_, _> = ARROWS.iter().copied().collect();
    let metadata = workspace();
    let members: BTreeSet<_> = metadata.packages.iter().map(|p| p.name.to_string()).collect();
    assert_eq!(members, ARROWS.iter().map(|(name, _)| (*name).to_owned()).collect(), "a crate came or went: give it its arrows");
    for package in &metadata.packages {
        let name = package.name.to_string();
        for dependency in package.dependencies.iter().filter(|d| members.contains(&d.name)) {
            assert!(allowed[name.as_str()].contains(&dependency.name.as_str()), "{name} must not use {}", dependency.name);
        }
        if ALONE.contains(&name.as_str()) {
            let linked: Vec<_> = package.dependencies.iter().filter(|d| d.kind == DependencyKind::Normal).map(|d| &d.name).collect();
            assert!(linked.is_empty(), "{name} must not use {linked:?}");
        }
    }
}

#[test]
fn every_crate_takes_the_lints_and_the_licence_of_the_workspace() {
    for package in workspace().packages {
        let manifest = std::fs::read_to_string(&package.manifest_path).unwrap();
        assert!(manifest.contains("[lints]\nworkspace = true"), "{} has lints of its own", package.name);
        assert_eq!(package.license.as_deref(), Some("Apache-2.0 OR MIT"), "{}", package.name);
        assert_eq!(package.publish.as_deref(), Some(&[][..]), "{} could be published by accident", package.name);
    }
}
