//! Container images made of Debian packages, without a container runtime.
//!
//! `berth container DEFINITION.toml -o FILE.oci.tar` resolves packages like a host image does and
//! writes an OCI image layout (image-spec 1.1) as a tar archive, with the `manifest.json` beside
//! it that `docker load` reads. Layers are three: the base packages, the other packages, the
//! definition's own files. A layer's bytes depend on nothing but its content, so images that share
//! packages share layers.

mod archive;
mod definition;
mod identity;
mod layer;

pub use archive::Summary;
pub use definition::ContainerDefinition;
pub use identity::identity;

use crate::accounts;
use crate::cache::{self, Cache};
use crate::debian::{self, Mirrors, Network};
use crate::definition::ExtraContent;
use crate::new_file;
use crate::prune::Rules;
use crate::tree::{Kind, Node, Tree};
use crate::{Error, Result};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// Left out of every container image: documentation, locales, and what belongs to a package
/// manager that is not there.
const DROP: [&str; 13] = [
    "usr/share/doc",
    "usr/share/man",
    "usr/share/info",
    "usr/share/locale",
    "usr/share/lintian",
    "usr/share/bug",
    "usr/share/bash-completion",
    "usr/share/doc-base",
    "usr/share/menu",
    "etc/init.d",
    "etc/cron*",
    "usr/lib/systemd",
    "etc/logrotate.d",
];

/// Raised when the same inputs give other bytes than before.
const BUILDER: &[u8] = b"berth container 4";

/// Packages that do the work of maintainer scripts, which never run.
const ASSUMED: [&str; 14] = [
    "debconf",
    "debconf-2.0",
    "dpkg",
    "perl",
    "perl-base",
    "init-system-helpers",
    "adduser",
    "lsb-base",
    "sysvinit-utils",
    "passwd",
    "ucf",
    "systemd",
    "iproute2",
    "libc-bin",
];

/// Builds the image that `definition` describes and writes it to `out`, which appears whole or
/// not at all.
pub fn build(
    definition: &ContainerDefinition,
    cache: &Cache,
    mirrors: &Mirrors,
    network: Network,
    out: &Path,
) -> Result<Summary> {
    new_file::check(out)?;
    let packages = resolve(definition, cache, mirrors, network, &definition.all_packages())?;
    let base = resolve(definition, cache, mirrors, network, &definition.base)?;
    let base: BTreeSet<[u8; 32]> = base.iter().map(|package| package.sha256).collect();
    let unpacked = debian::obtain(cache, mirrors, &packages, network)?;

    let rules = Rules::new(
        DROP.iter().map(|s| s.to_string()).chain(definition.drop.iter().cloned()),
        definition.keep.iter().cloned(),
    );
    let mut tree = Tree::with_merged_usr(0);
    tree.insert("var/run", Node::symlink("/run", 0));
    for package in unpacked.iter().filter(|u| base.contains(&u.package.sha256)) {
        debian::package::add_to_tree(package, &mut tree)?;
    }
    rules.apply(&mut tree);
    let epoch = newest(&tree);
    set_root_mtime(&mut tree, epoch);
    let base_layer = tree.clone();
    for package in unpacked.iter().filter(|u| !base.contains(&u.package.sha256)) {
        debian::package::add_to_tree(package, &mut tree)?;
    }
    rules.apply(&mut tree);
    let epoch = newest(&tree);
    let package_layer = layer::difference(&base_layer, &tree);
    let before = tree.clone();
    add_own_files(definition, &mut tree, epoch)?;
    let own_layer = layer::difference(&before, &tree);
    archive::write(definition, &[base_layer, package_layer, own_layer], epoch, out)
}

/// Builds the image into the cache, unless it is there, and returns its path.
pub fn build_into_cache(
    definition: &ContainerDefinition,
    cache: &Cache,
    mirrors: &Mirrors,
    network: Network,
) -> Result<PathBuf> {
    let packages = resolve(definition, cache, mirrors, network, &definition.all_packages())?;
    let mut parts: Vec<Vec<u8>> = vec![BUILDER.to_vec(), format!("{definition:?}").into_bytes()];
    parts.extend(packages.iter().map(|package| package.sha256.to_vec()));
    for file in &definition.files {
        if let ExtraContent::Source(source) = &file.content {
            parts.push(std::fs::read(source).map_err(Error::io("read", source))?);
        }
    }
    let parts: Vec<&[u8]> = parts.iter().map(Vec::as_slice).collect();
    let path = cache.derived("containers", &cache::key(&parts));
    if !path.exists() {
        let folder = path.parent().unwrap_or(cache.root());
        std::fs::create_dir_all(folder).map_err(Error::io("create", folder))?;
        build(definition, cache, mirrors, network, &path)?;
    }
    Ok(path)
}

fn resolve(
    definition: &ContainerDefinition,
    cache: &Cache,
    mirrors: &Mirrors,
    network: Network,
    packages: &[String],
) -> Result<Vec<debian::Package>> {
    let request = debian::Request {
        suite: definition.suite.clone(),
        architecture: "amd64".into(),
        packages: packages.to_vec(),
        recommends: false,
        assume: ASSUMED.iter().map(|s| s.to_string()).collect(),
    };
    Ok(debian::resolve(cache, mirrors, &request, network)?.packages)
}

/// The newest time in the packages stands for the time of the image: it is a property of the
/// content, so the same content gives the same bytes.
fn newest(tree: &Tree) -> i64 {
    let times = tree.iter().filter(|(path, _)| !path.is_empty()).map(|(_, node)| node.mtime);
    times.max().unwrap_or(0)
}

fn set_root_mtime(tree: &mut Tree, mtime: i64) {
    if let Some(root) = tree.get_mut("") {
        root.mtime = mtime;
    }
}

fn add_own_files(definition: &ContainerDefinition, tree: &mut Tree, epoch: i64) -> Result<()> {
    tree.insert(
        "etc/passwd",
        Node::file(accounts::passwd(&definition.accounts).into_bytes(), epoch),
    );
    tree.insert("etc/group", Node::file(accounts::group(&definition.accounts).into_bytes(), epoch));
    tree.insert("tmp", Node::directory(epoch).with_mode(0o1777));
    for file in &definition.files {
        tree.insert_extra(file, epoch)?;
    }
    for account in &definition.accounts {
        let home = account.home.trim_start_matches('/');
        if tree.get(home).is_none() && !home.is_empty() {
            let node = Node::directory(epoch).with_mode(0o700).with_owner(account.id, account.id);
            tree.insert(home, node);
        }
    }
    let missing = definition.entrypoint.first().filter(|program| {
        let node = tree.get(&tree.resolve(program));
        !matches!(node.map(|n| &n.kind), Some(Kind::File(_) | Kind::HardLink(_)))
    });
    match missing {
        Some(program) => Err(Error::refused(format!(
            "container {}: entrypoint {program} is not in the image",
            definition.name
        ))
        .with_hint("add the package or the [[file]] that holds it")),
        None => Ok(()),
    }
}
