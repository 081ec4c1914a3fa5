//! The host's root: packages in, the read-only tree out.
//!
//! No maintainer script ever runs. What they would have done that matters on a container host is
//! done here and nowhere else: merged /usr, accounts ([`crate::accounts`]), the CA bundle, the
//! `iptables` alternatives, module order, and links for the files of `/etc` that differ from
//! machine to machine. `docs/decisions/` says why.

mod contents;
mod settle;

use crate::cache::{Digest, hex};
use crate::debian::{self, Unpacked};
use crate::definition::{Definition, Runtime};
use crate::elf::Links;
use crate::guest::Programs;
use crate::prune::Rules;
use crate::tree::{Content, Kind, Node, Tree};
use crate::{Error, Result};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::path::PathBuf;
use std::sync::Arc;

pub use contents::{ASSUMED, packages};

/// The composed root and what belongs to the image beside it.
#[derive(Debug)]
pub struct Root {
    /// The tree of the root file system.
    pub tree: Tree,
    /// What was left out, in order.
    pub dropped: Vec<String>,
    /// Kernel release, as `uname -r` prints it.
    pub kernel_release: String,
    /// The kernel image.
    pub kernel: Content,
    /// systemd's EFI stub.
    pub stub: Vec<u8>,
    /// `/etc/os-release`, which is also the UKI's `.osrel`.
    pub os_release: String,
    /// Seconds since 1970 UTC: the newest time in the packages. It is a property of the content,
    /// so the same content gives the same image.
    pub epoch: i64,
    /// Debian copyright files by package.
    pub copyright: BTreeMap<String, String>,
}

/// A container image to preload.
#[derive(Clone, Debug)]
pub struct Preload {
    /// File name in the root.
    pub name: String,
    /// The archive.
    pub path: PathBuf,
    /// What tells its content from any other, where that is known.
    pub identity: Option<Digest>,
}

/// Composes the root of `definition` out of `packages`. Kernel module indexes are not in it yet.
pub fn compose(
    definition: &Definition,
    packages: &[Unpacked],
    programs: &Programs,
    preloads: &[Preload],
) -> Result<Root> {
    let mut tree = Tree::with_merged_usr(0);
    let mut asked_for = BTreeSet::new();
    for unpacked in packages {
        debian::package::add_to_tree(unpacked, &mut tree)?;
        if definition.packages.iter().any(|p| p.split('=').next() == Some(&unpacked.package.name)) {
            let mut alone = Tree::new(0);
            debian::package::add_to_tree(unpacked, &mut alone)?;
            asked_for.extend(alone.iter().map(|(path, _)| tree.real_path(path)));
        }
    }
    let epoch = tree.iter().map(|(_, node)| node.mtime).max().unwrap_or(0);
    for (_, node) in tree.iter_mut() {
        node.mtime = node.mtime.clamp(0, epoch);
        // Nobody on the host is anybody but root.
        if matches!(node.kind, Kind::File(_)) {
            node.mode &= !0o6000;
        }
    }

    let (kernel_release, kernel) = kernel(&tree)?;
    let stub = bytes_of(&tree, contents::STUB, "systemd-boot-efi")?;
    let copyright = copyright(&tree, packages)?;
    let bundle = settle::ca_bundle(&tree)?;

    let rules = contents::rules(definition, &asked_for);
    let mut dropped = rules.apply(&mut tree);
    dropped.extend(drop_unneeded_libraries(&mut tree, &rules, definition, &asked_for)?);
    dropped.sort();

    let os_release = settle::os_release(definition);
    settle::settle(definition, programs, &os_release, bundle, &mut tree, epoch)?;
    for preload in preloads {
        let file = File::open(&preload.path).map_err(Error::io("open", &preload.path))?;
        let len = file.metadata().map_err(Error::io("read", &preload.path))?.len();
        let (file, path) = (Arc::new(file), Arc::new(preload.path.clone()));
        let content = Content::Range { file, path, offset: 0, len };
        let at = format!("{}/images/{}.tar", contract::layout::LIB_DIR, preload.name);
        tree.insert(&at, Node::new(Kind::File(content), 0o644, epoch));
        if let Some(identity) = &preload.identity {
            let at = format!("{at}.{}", contract::layout::IMAGE_IDENTITY);
            let content = Content::Bytes(hex(identity).into_bytes().into());
            tree.insert(&at, Node::new(Kind::File(content), 0o644, epoch));
        }
    }
    for file in &definition.files {
        tree.insert_extra(file, epoch)?;
    }
    settle::link_registries(definition, &mut tree, epoch);
    check(definition, &tree)?;
    Ok(Root { tree, dropped, kernel_release, kernel, stub, os_release, epoch, copyright })
}

fn kernel(tree: &Tree) -> Result<(String, Content)> {
    let mut kernels = tree.iter().filter_map(|(path, node)| match &node.kind {
        Kind::File(content) => Some((path.strip_prefix("boot/vmlinuz-")?, content)),
        _ => None,
    });
    match (kernels.next(), kernels.next()) {
        (Some((release, content)), None) => Ok((release.to_owned(), content.clone())),
        (None, _) => Err(Error::refused("no package holds a kernel (boot/vmlinuz-*)")),
        (Some((one, _)), Some((two, _))) => {
            Err(Error::refused(format!("two kernels: {one} and {two}"))
                .with_hint("take all but one kernel package out of `packages`"))
        }
    }
}

fn bytes_of(tree: &Tree, path: &str, package: &str) -> Result<Vec<u8>> {
    match tree.get(path).map(|node| &node.kind) {
        Some(Kind::File(content)) => content.read_all(),
        _ => Err(Error::corrupt(format!("package {package} does not hold {path}"))),
    }
}

fn copyright(tree: &Tree, packages: &[Unpacked]) -> Result<BTreeMap<String, String>> {
    let mut found = BTreeMap::new();
    for Unpacked { package, .. } in packages {
        let path = tree.resolve(&format!("usr/share/doc/{}/copyright", package.name));
        if let Some(Kind::File(content)) = tree.get(&path).map(|node| &node.kind) {
            let text = String::from_utf8_lossy(&content.read_all()?).into_owned();
            found.insert(package.name.clone(), text);
        }
    }
    Ok(found)
}

/// Shared libraries that no program of the host links to came for programs that are left out.
/// Libraries of packages that were asked for by name stay: they may be opened at run time.
fn drop_unneeded_libraries(
    tree: &mut Tree,
    rules: &Rules,
    definition: &Definition,
    asked_for: &BTreeSet<String>,
) -> Result<Vec<String>> {
    let is_library = |path: &str| {
        let folder = crate::tree::parent(path);
        (folder == "usr/lib/x86_64-linux-gnu" || folder == "usr/lib") && path.contains(".so")
    };
    let links = Links::read(tree, contents::is_kernel_module)?;
    let needed = links.reachable(|path| !is_library(path) || asked_for.contains(path));
    let keep = Rules::new(definition.keep.iter().cloned(), Vec::<String>::new());
    let gone: Vec<String> = tree
        .iter()
        .filter(|(path, node)| {
            is_library(path)
                && !matches!(node.kind, Kind::Directory)
                && !needed.contains(*path)
                && !asked_for.contains(*path)
                && !keep.drops(path)
                && !contents::OPENED_AT_RUN_TIME.iter().any(|name| path.contains(name))
        })
        .map(|(path, _)| path.to_owned())
        .collect();
    Ok(rules.remove(tree, gone))
}

/// Everything that the host starts is there, with every library that it needs.
fn check(definition: &Definition, tree: &Tree) -> Result<()> {
    let is_file = |path: &str| {
        let node = tree.get(&tree.resolve(path));
        matches!(node.map(|n| &n.kind), Some(Kind::File(_) | Kind::HardLink(_)))
    };
    for program in contents::required(definition.runtime, definition.debug_shell) {
        if !is_file(program) {
            return Err(Error::refused(format!("/{program} is not in the root"))
                .with_hint("the host needs it: do not drop it"));
        }
    }
    match Links::read(tree, contents::is_kernel_module)?.missing.first() {
        None => Ok(()),
        Some(missing) => Err(Error::refused(format!(
            "/{} needs {}, which is not in the root",
            missing.file, missing.library
        ))
        .with_hint("keep the library, add its package, or drop the file")),
    }
}

/// Whether `runtime` brings Docker.
fn has_docker(runtime: Runtime) -> bool {
    runtime == Runtime::Docker
}
