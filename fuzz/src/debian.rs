//! What a mirror sends.

use crate::Target;
use image_builder::debian::release::{self, Freshness, Suite};
use image_builder::debian::{
    Archive, Package, Request, Unpacked, add_to_tree, cleartext, deb822, index, resolve, unpack,
};
use image_builder::tree::Tree;
use std::path::Path;

pub const TARGETS: &[Target] = &[
    Target { name: "packages-index", run: packages, samples: packages_samples },
    Target { name: "release", run: in_release, samples: release_samples },
    Target { name: "deb", run: deb, samples: deb_samples },
];

const NAME: &str = "a";

fn packages_samples() -> Vec<Vec<u8>> {
    let text = format!(
        "Package: a\nVersion: 1:2.0-1+b1\nArchitecture: amd64\nDepends: b (>= 1) | c:any, \
         d [linux-any]\nProvides: v (= 1)\nFilename: pool/a.deb\nSize: 7\nSHA256: {0}\n\n\
         Package: b\nVersion: 2~rc1\nArchitecture: all\nConflicts: x (<< 3)\nSize: 1\n\
         Filename: pool/b.deb\nSHA256: {0}\nDescription: two\n lines\n\n",
        "0a".repeat(32)
    );
    vec![text.into_bytes()]
}

/// An index that can be condensed can be resolved, or refused; what is taken from it can be put
/// into paths.
fn packages(data: &[u8]) -> bool {
    let Ok(text) = index::condense(data, "test") else { return false };
    let indexes = [index::Index { archive: Archive::Main, text }];
    let request = Request {
        suite: "trixie".into(),
        architecture: "amd64".into(),
        packages: vec![NAME.into()],
        recommends: true,
        assume: vec!["d".into()],
    };
    let Ok(packages) = resolve::resolve(&indexes, &request) else { return false };
    for package in &packages {
        assert!(!package.filename.split('/').any(|part| ["", ".", ".."].contains(&part)));
    }
    true
}

fn release_samples() -> Vec<Vec<u8>> {
    let text = format!(
        "-----BEGIN PGP SIGNED MESSAGE-----\nHash: SHA512\n\nOrigin: Debian\nSuite: stable\n\
         Codename: trixie\nDate: Thu, 01 Jan 2026 00:00:00 UTC\n\
         Valid-Until: Thu, 08 Jan 2026 00:00:00 UTC\nArchitectures: all amd64\n\
         No-Support-for-Architecture-all: Packages\nAcquire-By-Hash: yes\nSHA256:\n \
         {} 12 main/binary-amd64/Packages.xz\n- - x\n-----BEGIN PGP SIGNATURE-----\n\niQ==\n=aaaa\n\
         -----END PGP SIGNATURE-----\n",
        "0b".repeat(32)
    );
    vec![text.into_bytes()]
}

/// What is signed is a part of the text; a release that is read lists each index that was asked
/// for.
fn in_release(data: &[u8]) -> bool {
    let Ok(text) = str::from_utf8(data) else { return false };
    let suite = Suite { name: "trixie".into(), archive: Archive::Main };
    let signed = cleartext::split(text).map(|parts| parts.text);
    let text = signed.unwrap_or_else(|_| text.to_owned());
    deb822::paragraphs(&text);
    let fresh = Freshness::NotRequired;
    let read = release::parse(&text, [0; 32], &suite, "amd64", fresh, 1_767_300_000);
    assert!(read.as_ref().map_or(true, |read| !read.indexes.is_empty()));
    read.is_ok()
}

fn deb_samples() -> Vec<Vec<u8>> {
    let tar = |name: &str, content: &[u8]| {
        let mut tar = tar::Builder::new(Vec::new());
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(1);
        tar.append_data(&mut header, name, content).expect("in memory");
        tar.into_inner().expect("in memory")
    };
    let control = tar("./control", b"Package: a\nVersion: 1\nArchitecture: all\nSection: kernel\n");
    let data = tar("./usr/bin/a", b"program");
    let mut deb = ar::Builder::new(Vec::new());
    let members =
        [("debian-binary", b"2.0\n".to_vec()), ("control.tar", control), ("data.tar", data)];
    for (name, content) in members {
        let header = ar::Header::new(name.into(), content.len() as u64);
        deb.append(&header, &content[..]).expect("in memory");
    }
    vec![deb.into_inner().expect("in memory")]
}

/// A package that is taken has a tar of the size and digest that are noted of it, and what its tar
/// puts into a tree lies below the tree's root.
fn deb(data: &[u8]) -> bool {
    let package = Package {
        name: NAME.into(),
        version: "1".into(),
        architecture: "all".into(),
        archive: Archive::Main,
        filename: "pool/a.deb".into(),
        size: data.len() as u64,
        sha256: [0; 32],
    };
    let out = tempfile::tempfile().expect("a file");
    let path = Path::new("/nowhere");
    let Ok(facts) = unpack::extract(data, &out, path, &package) else { return false };
    assert_eq!(out.metadata().expect("its size").len(), facts.tar_size);
    let unpacked = Unpacked::new(&package, facts, out, path.to_owned());
    let mut tree = Tree::new(0);
    let added = add_to_tree(&unpacked.expect("facts of its own"), &mut tree);
    let up = |path: &str| path.split('/').any(|part| part == "..");
    assert!(tree.iter().all(|(path, _)| !path.starts_with('/') && !up(path)));
    added.is_ok()
}
