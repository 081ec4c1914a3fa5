//! The initramfs: `init` and the modules that lead to the root filesystem.
//!
//! It is not compressed: the picker reads it once from a raw partition, and an update that changes
//! one module then changes few bytes.

use super::cpio::Archive;
use super::modules::{self, ModuleIndex};
use crate::tree::{Kind, Tree, parent};
use crate::{Error, Result};
use contract::layout::LIB_DIR;
use std::collections::BTreeSet;
use std::io::Read;

/// The largest module that is taken.
const MODULE_LIMIT: u64 = 64 << 20;

/// Without these no root filesystem can be opened: built in, or in the archive and loaded
/// unconditionally.
const REQUIRED: [&str; 2] = ["dm_verity", "ext4"];

/// Loaded unconditionally, ahead of [`REQUIRED`], where the kernel has them: dm-verity takes the
/// best SHA-256 that is there when it opens a device; the firmware's variables say which slot the
/// picker chose; a kernel that panics leaves its last lines in them.
const EARLY: [&str; 4] = ["efivarfs", "efi_pstore", "sha256_generic", "sha256_ssse3"];

/// Drivers of what a disk can hang on; loaded when the hardware is there. A kernel flavour has
/// some of them.
const STORAGE: [&str; 29] = [
    // Virtual machines.
    "virtio_pci",
    "virtio_mmio",
    "virtio_blk",
    "virtio_scsi",
    "hv_vmbus",
    "hv_storvsc",
    "pci_hyperv",
    "vmw_pvscsi",
    "xen_blkfront",
    // NVMe, also behind Intel's volume management.
    "vmd",
    "nvme",
    // SATA.
    "ahci",
    "ata_piix",
    "sd_mod",
    // USB.
    "xhci_hcd",
    "xhci_pci",
    "ehci_hcd",
    "ehci_pci",
    "usb_storage",
    "uas",
    // eMMC.
    "sdhci_pci",
    "sdhci_acpi",
    "mmc_block",
    // RAID controllers of servers.
    "megaraid_sas",
    "mpt3sas",
    "mpi3mr",
    "smartpqi",
    "hpsa",
    "aacraid",
];

/// Drivers of hardware watchdogs, and what their devices hang on: `init` arms one before it looks
/// for a disk, so that a release that hangs later restarts the machine.
const WATCHDOGS: [&str; 8] = [
    // QEMU, and the chipset that it stands for.
    "i6300esb",
    // Intel, AMD.
    "iTCO_wdt",
    "lpc_ich",
    "i2c_i801",
    "sp5100_tco",
    // Servers that describe theirs in ACPI, and HPE's.
    "wdat_wdt",
    "hpwdt",
    "xen_wdt",
];

/// Directories that `init` mounts on.
const DIRECTORIES: [&str; 7] = ["dev", "etc", "proc", "run", "sys", "sysroot", "tmp"];

/// Name of the list of modules to load unconditionally, in [`LIB_DIR`]: one name a line, in order.
/// A line may fail to load when the processor lacks what the module needs.
pub const LOAD_LIST: &str = "modules.load";

/// What goes into an initramfs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// The modules.
    pub modules: ModuleIndex,
    /// Lines of [`LOAD_LIST`].
    pub load: Vec<String>,
}

/// Chooses the modules. Fails when the kernel has no dm-verity or no ext4.
pub fn plan(index: &ModuleIndex) -> Result<Plan> {
    let present = |name: &&&str| index.find(name).is_some() && !index.is_builtin(name);
    let early = EARLY.iter().filter(present).copied();
    let required = REQUIRED.iter().filter(|name| !index.is_builtin(name)).copied();
    let load = index.closure(early.chain(required));
    let all = index.closure(
        load.load
            .iter()
            .map(String::as_str)
            .chain(STORAGE.iter().chain(&WATCHDOGS).filter(present).copied()),
    );
    if let Some(missing) = load.unknown.first().or(all.unknown.first()) {
        let what = format!("kernel {} has no module {missing}", index.release);
        return Err(Error::refused(what).with_hint("use the kernel flavour `cloud` or `generic`"));
    }
    Ok(Plan { modules: index.restrict(&all.load), load: load.load })
}

/// Writes the archive: `init` (a static program) and the planned modules, taken out of `tree`.
pub fn write(plan: &Plan, tree: &Tree, init: &[u8], mtime: u32) -> Result<Vec<u8>> {
    let directory = modules::directory(&plan.modules.release);
    let mut files: Vec<(String, Source)> = Vec::new();
    for module in &plan.modules.modules {
        files.push((format!("{directory}/{}", module.path), Source::Tree));
    }
    for (name, text) in plan.modules.files() {
        files.push((format!("{directory}/{name}"), Source::Text(text)));
    }
    let load: String = plan.load.iter().map(|name| format!("{name}\n")).collect();
    files.push((format!("{LIB_DIR}/{LOAD_LIST}"), Source::Text(load)));
    files.sort_by(|a, b| a.0.cmp(&b.0));

    let mut directories: BTreeSet<&str> = DIRECTORIES.into();
    for (path, _) in &files {
        let mut above = parent(path);
        while !above.is_empty() && directories.insert(above) {
            above = parent(above);
        }
    }
    let mut archive = Archive::new(mtime);
    for path in directories {
        archive.directory(path, 0o755);
    }
    // The kernel opens it for `init` before anything is mounted.
    archive.char_device("dev/console", 0o600, 5, 1);
    archive.file("init", 0o755, init);
    for (path, source) in &files {
        match source {
            Source::Text(text) => archive.file(path, 0o644, text.as_bytes()),
            Source::Tree => archive.file(path, 0o644, &module(tree, path)?),
        }
    }
    Ok(archive.finish())
}

enum Source {
    Text(String),
    Tree,
}

fn module(tree: &Tree, path: &str) -> Result<Vec<u8>> {
    match tree.get(path).map(|node| &node.kind) {
        Some(Kind::File(content)) if content.len() <= MODULE_LIMIT => {
            let mut bytes = Vec::with_capacity(content.len() as usize);
            content.reader().read_to_end(&mut bytes).map_err(Error::io("read", path))?;
            Ok(bytes)
        }
        _ => Err(Error::corrupt(format!("{path} is not in the root filesystem"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::modinfo::sample_module;
    use crate::tree::Node;

    fn tree(modules: &[(&str, &[&str])]) -> Tree {
        let mut tree = Tree::new(0);
        for (path, info) in modules {
            let path = format!("usr/lib/modules/6.1/kernel/{path}");
            tree.insert(&path, Node::file(sample_module(info), 0));
        }
        tree.insert(
            "usr/lib/modules/6.1/modules.builtin",
            Node::file(*b"kernel/fs/ext4/ext4.ko\n", 0),
        );
        tree
    }

    #[test]
    fn the_digest_and_verity_are_loaded_and_drivers_wait_for_their_hardware() {
        let tree = tree(&[
            ("md/dm-verity.ko", &["depends=dm-mod"]),
            ("md/dm-mod.ko", &[]),
            ("crypto/sha256-ssse3.ko", &[]),
            ("block/virtio_blk.ko", &["alias=virtio:d00000002v*"]),
            ("net/e1000.ko", &[]),
        ]);
        let plan = plan(&modules::index(&tree, "6.1").expect("index")).expect("plan");
        assert_eq!(plan.load, ["sha256_ssse3", "dm_mod", "dm_verity"]);
        let names: Vec<_> = plan.modules.modules.iter().map(|m| m.name.as_str()).collect();
        assert_eq!(names, ["virtio_blk", "sha256_ssse3", "dm_mod", "dm_verity"]);

        let archive = write(&plan, &tree, b"#init", 7).expect("archive");
        let has = |text: &str| archive.windows(text.len()).any(|w| w == text.as_bytes());
        assert!(has("sha256_ssse3\ndm_mod\ndm_verity\n"));
        assert!(has("usr/lib/modules/6.1/kernel/block/virtio_blk.ko\0"));
        assert!(!has("e1000"));
        assert_eq!(archive, write(&plan, &tree, b"#init", 7).expect("archive"));
    }

    #[test]
    fn a_kernel_without_verity_is_refused() {
        let tree = tree(&[("block/virtio_blk.ko", &[])]);
        let error = plan(&modules::index(&tree, "6.1").expect("index")).unwrap_err();
        assert_eq!(error.to_string(), "kernel 6.1 has no module dm_verity");
    }
}
