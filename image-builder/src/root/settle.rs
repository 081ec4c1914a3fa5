//! What maintainer scripts would have done, and the files that are Berth's own.

use super::contents;
use crate::accounts::{self, Account};
use crate::definition::Definition;
use crate::guest::Programs;
use crate::tree::{Kind, Node, Tree};
use crate::{Error, Result};
use contract::layout::{LIB_DIR, WRITABLE};
use contract::release::TRUSTED_ROOT;

/// The CA bundle, as `update-ca-certificates` writes it: every certificate of the package, by
/// name.
pub(super) fn ca_bundle(tree: &Tree) -> Result<Vec<u8>> {
    let mut bundle = Vec::new();
    for (path, node) in tree.iter() {
        let Kind::File(content) = &node.kind else { continue };
        if path.starts_with("usr/share/ca-certificates/") && path.ends_with(".crt") {
            bundle.extend(content.read_all()?);
            if bundle.last() != Some(&b'\n') {
                bundle.push(b'\n');
            }
        }
    }
    match bundle.is_empty() {
        true => Err(Error::corrupt("package ca-certificates holds no certificates")),
        false => Ok(bundle),
    }
}

/// os-release(5).
pub(super) fn os_release(definition: &Definition) -> String {
    let Definition { name, version, .. } = definition;
    let mut text = format!(
        "NAME=Berth\nID=berth\nID_LIKE=debian\nPRETTY_NAME=\"Berth {name} {version}\"\n\
         VERSION_ID=\"{version}\"\nIMAGE_ID=\"{name}\"\nIMAGE_VERSION=\"{version}\"\n"
    );
    if definition.debug_shell {
        text.push_str("VARIANT=\"debug shell\"\nVARIANT_ID=debug\n");
    }
    text
}

/// Files of `/etc` that differ from machine to machine, which `init` writes into `/run`, and two
/// that lie elsewhere.
const LINKS: [(&str, &str); 6] = [
    ("etc/hostname", "../run/hostname"),
    ("etc/hosts", "../run/hosts"),
    ("etc/machine-id", "../run/machine-id"),
    ("etc/resolv.conf", "../run/resolv.conf"),
    ("etc/mtab", "../proc/self/mounts"),
    ("etc/os-release", "../usr/lib/os-release"),
];

/// Debian's iptables is a multi-call program.
const IPTABLES_PROGRAM: &str = "xtables-nft-multi";

/// What `update-alternatives` would have linked to it.
const IPTABLES: [&str; 6] = [
    "iptables",
    "iptables-save",
    "iptables-restore",
    "ip6tables",
    "ip6tables-save",
    "ip6tables-restore",
];

/// Mount points and the like.
const DIRECTORIES: [(&str, u16); 12] = [
    ("dev", 0o755),
    ("etc", 0o755),
    ("mnt", 0o755),
    ("opt", 0o755),
    ("proc", 0o555),
    ("root", 0o700),
    ("run", 0o755),
    ("srv", 0o755),
    ("sys", 0o555),
    ("tmp", 0o1777),
    ("usr/lib/berth/images", 0o755),
    ("var", 0o755),
];

/// Where `init` says what the host configuration tells of registries, for dockerd and containerd.
const REGISTRIES: [&str; 2] = ["etc/docker/certs.d", "etc/containerd/certs.d"];

/// Links of a folder for which the image has no files of its own.
pub(super) fn link_registries(definition: &Definition, tree: &mut Tree, epoch: i64) {
    let skipped = if super::has_docker(definition.runtime) { "" } else { REGISTRIES[0] };
    for path in REGISTRIES.into_iter().filter(|path| *path != skipped) {
        if tree.get(path).is_none() {
            tree.insert(path, Node::symlink("../../run/berth/registries", epoch));
        }
    }
}

pub(super) fn settle(
    definition: &Definition,
    programs: &Programs,
    os_release: &str,
    ca_bundle: Vec<u8>,
    tree: &mut Tree,
    epoch: i64,
) -> Result<()> {
    for (path, mode) in DIRECTORIES {
        tree.insert(path, Node::directory(epoch).with_mode(mode));
    }
    for (path, target) in LINKS {
        tree.insert(path, Node::symlink(target, epoch));
    }
    if tree.get(&format!("usr/sbin/{IPTABLES_PROGRAM}")).is_some() {
        for name in IPTABLES {
            tree.insert(&format!("usr/sbin/{name}"), Node::symlink(IPTABLES_PROGRAM, epoch));
        }
    }
    // The group that may talk to dockerd's socket. Nobody is in it: there are no users.
    let accounts = [Account::new("docker", 990, "/nonexistent")];
    let mut text = |path: &str, text: String| {
        tree.insert(path, Node::file(text.into_bytes(), epoch));
    };
    text("etc/passwd", accounts::passwd(&accounts));
    text("etc/group", accounts::group(&accounts));
    text("etc/nsswitch.conf", "passwd: files\ngroup: files\nhosts: files dns\n".into());
    text("usr/lib/os-release", os_release.to_owned());
    text(&format!("{LIB_DIR}/build-time"), format!("{epoch}\n"));
    text(&format!("{LIB_DIR}/modules.load"), contents::MODULES.join("\n") + "\n");
    text(&format!("{LIB_DIR}/modules.last"), contents::LAST_MODULES.join("\n") + "\n");
    if !definition.writable.is_empty() {
        text(&format!("{LIB_DIR}/{WRITABLE}"), definition.writable.join("\n") + "\n");
    }
    if let Some(host_config) = &definition.host_config {
        text(&format!("{LIB_DIR}/host.toml"), host_config.clone());
    }
    if let Some(root) = &definition.update_root {
        tree.insert(TRUSTED_ROOT, Node::file(root.clone(), epoch));
    }
    for folder in definition.writable.iter().filter(|folder| !folder.starts_with("/var/")) {
        let path = folder.trim_start_matches('/');
        if tree.get(&tree.resolve(path)).is_none() {
            tree.insert(path, Node::directory(epoch));
        }
    }
    tree.insert("etc/ssl/certs/ca-certificates.crt", Node::file(ca_bundle, epoch));

    let init = Node::file(programs.init.clone(), epoch).with_mode(0o755);
    tree.insert(&format!("{LIB_DIR}/init"), init);
    tree.insert("usr/sbin/init", Node::symlink("../lib/berth/init", epoch));
    tree.insert("usr/sbin/modprobe", Node::symlink("../lib/berth/init", epoch));
    let updater = Node::file(programs.updater.clone(), epoch).with_mode(0o755);
    tree.insert("usr/bin/berth-updater", updater);
    if definition.debug_shell {
        tree.insert("usr/bin/sh", Node::symlink("busybox", epoch));
    }
    Ok(())
}
