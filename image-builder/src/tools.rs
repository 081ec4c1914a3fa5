//! Programs that are not installed: QEMU with its firmware, and independent checkers of images.
//!
//! They come out of Debian packages, by the resolver that also serves images, into a folder of the
//! cache, and run from there through the dynamic linker that came with them. Nothing is installed
//! and no maintainer script runs. A QEMU that is installed is used when it is new enough.

use crate::cache::{Cache, Digest, hex, key, parse_hex};
use crate::debian::{self, Mirrors, Network, Request};
use crate::tree::{Kind, Node, Tree, parent};
use crate::tree_export::export;
use crate::{Error, Result};
use qemu::Toolset;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{SystemTime, UNIX_EPOCH};

/// The suite that the programs are taken from, whatever the images are made of.
const SUITE: &str = "trixie";

/// Changes whenever the same packages would be exported otherwise.
const FORMAT: &str = "tools 1";

/// After this many seconds the network is asked whether newer packages exist: 30 days.
const FRESH: u64 = 30 * 24 * 3600;

/// The oldest QEMU that is taken from the machine. Guests have died under the emulation of 7.2;
/// this one and later ones are what the distributions of today carry.
const OLDEST_QEMU: (u32, u32) = (8, 2);

/// Packages that are exported together.
struct Set {
    packages: &'static [&'static str],
    /// Not needed for what the programs are used for here.
    assume: &'static [&'static str],
}

const MACHINE: Set = Set {
    packages: &["qemu-system-x86", "ovmf"],
    // Made use of by scripts that are not run, and by modules for sound, Braille and smart cards.
    assume: &["adduser", "debconf", "libasound2t64", "libbrlapi0.8", "libcacard0"],
};

const CHECKERS: Set = Set {
    packages: &["e2fsprogs", "cryptsetup-bin", "gdisk", "dosfstools", "mtools", "kmod", "dpkg"],
    assume: &[],
};

const REGISTRY: Set = Set { packages: &["docker-registry"], assume: &["adduser"] };

/// Folders of packages that no program here reads.
const LEFT_OUT: [&str; 8] = [
    "usr/share/doc",
    "usr/share/man",
    "usr/share/info",
    "usr/share/locale",
    "usr/share/bash-completion",
    "usr/share/lintian",
    "usr/share/qemu/keymaps",
    "var",
];

/// Gets programs. Making one costs nothing.
#[derive(Clone, Debug)]
pub struct Tools<'a> {
    /// Where exported programs are kept.
    pub cache: &'a Cache,
    /// The value of `--mirror`.
    pub mirror: Option<&'a str>,
    /// Whether the network may be asked.
    pub network: Network,
}

impl Tools<'_> {
    /// QEMU and OVMF: those of this machine, else those of the packages.
    pub fn qemu(&self) -> Result<Toolset> {
        let accel_cache = Some(self.cache.root().join("accelerator"));
        if let Some(toolset) = installed_qemu() {
            return Ok(Toolset { accel_cache, ..toolset });
        }
        let exported = self.exported(&MACHINE)?;
        let dir = &exported.folder;
        let data = ["usr/share/qemu", "usr/share/seabios", "usr/lib/ipxe/qemu"];
        Ok(Toolset {
            qemu: exported.launcher(QEMU)?,
            data_dirs: data.iter().map(|d| dir.join(d)).filter(|d| d.is_dir()).collect(),
            ovmf_code: dir.join("usr/share/OVMF/OVMF_CODE_4M.fd"),
            ovmf_vars: dir.join("usr/share/OVMF/OVMF_VARS_4M.fd"),
            accel_cache,
        })
    }

    /// A checker, as the program and the arguments that come first: `e2fsck`, `debugfs`,
    /// `veritysetup`, `sgdisk`, `fsck.vfat`, `mcopy`, `depmod`, `dpkg-deb`... Always that of the
    /// packages: the same judge on every machine.
    pub fn checker(&self, name: &str) -> Result<Vec<OsString>> {
        self.exported(&CHECKERS)?.launcher(name)
    }

    /// A registry of container images, `docker-registry`, as the program and the arguments that come
    /// first.
    pub fn registry(&self) -> Result<Vec<OsString>> {
        self.exported(&REGISTRY)?.launcher("docker-registry")
    }

    /// The programs of a set.
    fn exported(&self, set: &Set) -> Result<Exported> {
        let machine = machine()?;
        let mut parts = vec![FORMAT, SUITE, machine.architecture];
        parts.extend(set.packages);
        parts.push("assume");
        parts.extend(set.assume);
        let asked = key(&parts.iter().map(|part| part.as_bytes()).collect::<Vec<_>>());
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs());
        let fresh = |kept: &Kept| self.network.is_offline() || now.abs_diff(kept.asked_at) < FRESH;
        let before = Kept::read(self.cache, &asked)?;
        if let Some((_, exported)) = before.clone().filter(|(kept, _)| fresh(kept)) {
            return Ok(exported);
        }

        // One at a time: the others find it done.
        let folder = self.cache.root().join("tools");
        fs::create_dir_all(&folder).map_err(Error::io("create", &folder))?;
        let lock = folder.join("lock");
        let held = File::create(&lock).map_err(Error::io("create", &lock))?;
        held.lock().map_err(Error::io("lock", &lock))?;
        if let Some((_, exported)) = Kept::read(self.cache, &asked)?.filter(|(kept, _)| fresh(kept))
        {
            return Ok(exported);
        }
        let request = Request {
            suite: SUITE.into(),
            architecture: machine.architecture.into(),
            packages: set.packages.iter().map(|&name| name.into()).collect(),
            recommends: false,
            assume: set.assume.iter().map(|&name| name.into()).collect(),
        };
        match (self.export(&request), before) {
            (Ok((content, exported)), _) => {
                let kept = Kept { content: hex(&content), asked_at: now };
                self.cache.write_derived(ASKED, &asked, &to_json(&kept))?;
                Ok(exported)
            }
            // Old ones are better than none.
            (Err(Error::Fetch { .. }), Some((_, exported))) => Ok(exported),
            (Err(error), _) => Err(error),
        }
    }

    /// Resolves, fetches and exports packages. Called under the lock.
    fn export(&self, request: &Request) -> Result<(Digest, Exported)> {
        let mirrors = Mirrors::find(self.mirror)?;
        let resolved = debian::resolve(self.cache, &mirrors, request, self.network)?;
        let digests = resolved.packages.iter().map(|p| &p.sha256[..]);
        let parts: Vec<&[u8]> = std::iter::once(FORMAT.as_bytes()).chain(digests).collect();
        let content = key(&parts);
        if let Some(exported) = Exported::read(self.cache, &content)? {
            return Ok((content, exported));
        }

        let mut tree = Tree::new(0);
        // As on an installed system, where packages still use the old names.
        for name in ["bin", "sbin", "lib", "lib64"] {
            let target = format!("usr/{name}");
            tree.insert(&target, Node::directory(0));
            tree.insert(name, Node::symlink(&target, 0));
        }
        let packages = debian::obtain(self.cache, &mirrors, &resolved.packages, self.network)?;
        for package in &packages {
            debian::add_to_tree(package, &mut tree)?;
        }
        for path in LEFT_OUT {
            tree.remove(path);
        }

        let folder = self.cache.derived(FOLDERS, &content);
        let new = folder.with_extension("new");
        for left_over in [&new, &folder] {
            if left_over.exists() {
                fs::remove_dir_all(left_over).map_err(Error::io("remove", left_over))?;
            }
        }
        let above = folder.parent().expect("the cache has a folder for it");
        fs::create_dir_all(above).map_err(Error::io("create", above))?;
        let files = export(&tree, &new)?;
        fs::rename(&new, &folder).map_err(Error::io("create", &folder))?;
        let list = Listed { libraries: library_folders(&tree), files };
        self.cache.write_derived(LISTS, &content, &to_json(&list))?;
        Ok((content, Exported { folder, libraries: list.libraries }))
    }
}

/// Kinds of derived content in the cache.
const ASKED: &str = "tools-asked";
const FOLDERS: &str = "tools";
const LISTS: &str = "tools-list";

/// What a set came to when the network was asked last.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Kept {
    content: String,
    asked_at: u64,
}

impl Kept {
    fn read(cache: &Cache, asked: &Digest) -> Result<Option<(Kept, Exported)>> {
        let bytes = cache.read_derived(ASKED, asked)?;
        let kept: Option<Kept> = bytes.and_then(|b| serde_json::from_slice(&b).ok());
        let Some(kept) = kept else { return Ok(None) };
        let Some(content) = parse_hex(&kept.content) else { return Ok(None) };
        Ok(Exported::read(cache, &content)?.map(|exported| (kept, exported)))
    }
}

/// What was exported, to notice what was lost since.
#[derive(Debug, Serialize, Deserialize)]
struct Listed {
    /// Folders that hold libraries.
    libraries: Vec<String>,
    /// Regular files with their sizes.
    files: Vec<(String, u64)>,
}

/// Packages in a folder.
#[derive(Clone, Debug)]
struct Exported {
    folder: PathBuf,
    libraries: Vec<String>,
}

impl Exported {
    /// The folder, if each file is there with its size: the cache is never flushed, and a power cut
    /// leaves files empty.
    fn read(cache: &Cache, content: &Digest) -> Result<Option<Exported>> {
        let bytes = cache.read_derived(LISTS, content)?;
        let list: Option<Listed> = bytes.and_then(|b| serde_json::from_slice(&b).ok());
        let Some(list) = list else { return Ok(None) };
        let folder = cache.derived(FOLDERS, content);
        let whole = list.files.iter().all(|(path, size)| {
            fs::symlink_metadata(folder.join(path)).is_ok_and(|there| there.len() == *size)
        });
        Ok(whole.then_some(Exported { folder, libraries: list.libraries }))
    }

    /// A program, run through the dynamic linker of the packages.
    fn launcher(&self, name: &str) -> Result<Vec<OsString>> {
        let program = ["usr/bin", "usr/sbin"].iter().map(|d| self.folder.join(d).join(name));
        let program = program.into_iter().find(|path| path.exists()).ok_or_else(|| {
            Error::refused(format!("there is no program `{name}` among the tools"))
        })?;
        let mut path = OsString::new();
        for library in &self.libraries {
            if !path.is_empty() {
                path.push(":");
            }
            path.push(self.folder.join(library));
        }
        // Without the machine's own list of libraries, which are of another release.
        let linker = self.folder.join("usr/lib").join(machine()?.linker);
        Ok(vec![
            linker.into(),
            "--inhibit-cache".into(),
            "--library-path".into(),
            path,
            program.into(),
        ])
    }
}

fn to_json(value: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(value).expect("plain values have a JSON form")
}

/// How Debian names this kind of machine.
struct Machine {
    architecture: &'static str,
    /// The dynamic linker, below `usr/lib`.
    linker: &'static str,
}

fn machine() -> Result<Machine> {
    match std::env::consts::ARCH {
        "x86_64" => {
            Ok(Machine { architecture: "amd64", linker: "x86_64-linux-gnu/ld-linux-x86-64.so.2" })
        }
        "aarch64" => {
            Ok(Machine { architecture: "arm64", linker: "aarch64-linux-gnu/ld-linux-aarch64.so.1" })
        }
        other => Err(Error::refused(format!("no tools are known for a machine of type {other}"))
            .with_hint("install QEMU and OVMF")),
    }
}

/// Folders below `usr/lib` with libraries in them, those of the linker's own kind first.
fn library_folders(tree: &Tree) -> Vec<String> {
    let is_library = |path: &str| {
        let name = path.rsplit('/').next().unwrap_or(path);
        path.starts_with("usr/lib/") && name.starts_with("lib") && name.contains(".so")
    };
    let libraries = tree.iter().filter(|(_, node)| matches!(node.kind, Kind::File(_)));
    let folders = libraries.filter(|(path, _)| is_library(path)).map(|(path, _)| parent(path));
    let folders: BTreeSet<&str> = folders.collect();
    folders.into_iter().map(str::to_owned).collect()
}

/// A QEMU on the PATH that is new enough, with an OVMF where distributions put it.
fn installed_qemu() -> Option<Toolset> {
    let output = Command::new(QEMU).arg("--version").stdin(Stdio::null()).output().ok()?;
    let version = version(&String::from_utf8_lossy(&output.stdout))?;
    if version < OLDEST_QEMU {
        return None;
    }
    let (code, vars) = OVMF.iter().find(|(c, v)| [c, v].iter().all(|p| Path::new(p).exists()))?;
    Some(Toolset {
        qemu: vec![QEMU.into()],
        data_dirs: Vec::new(),
        ovmf_code: code.into(),
        ovmf_vars: vars.into(),
        accel_cache: None,
    })
}

/// QEMU's name.
const QEMU: &str = "qemu-system-x86_64";

/// OVMF's code and variables, 4 MB flavour without Secure Boot, as raw images.
const OVMF: [(&str, &str); 5] = [
    // Debian, Ubuntu
    ("/usr/share/OVMF/OVMF_CODE_4M.fd", "/usr/share/OVMF/OVMF_VARS_4M.fd"),
    // Arch
    ("/usr/share/edk2/x64/OVMF_CODE.4m.fd", "/usr/share/edk2/x64/OVMF_VARS.4m.fd"),
    // Fedora
    ("/usr/share/edk2/ovmf/OVMF_CODE.fd", "/usr/share/edk2/ovmf/OVMF_VARS.fd"),
    // openSUSE
    ("/usr/share/qemu/ovmf-x86_64-code.bin", "/usr/share/qemu/ovmf-x86_64-vars.bin"),
    // QEMU's own
    ("/usr/share/qemu/edk2-x86_64-code.fd", "/usr/share/qemu/edk2-i386-vars.fd"),
];

/// Major and minor number out of `QEMU emulator version 10.0.3 (Debian ...)`.
fn version(text: &str) -> Option<(u32, u32)> {
    let mut numbers = text.lines().next()?.strip_prefix("QEMU emulator version ")?.split('.');
    let major = numbers.next()?.parse().ok()?;
    let minor = numbers.next()?.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()?;
    Some((major, minor))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read() {
        let cases = [
            (
                "QEMU emulator version 10.0.13 (Debian 1:10.0.13+ds-0+deb13u1)
",
                Some((10, 0)),
            ),
            ("QEMU emulator version 8.2.2", Some((8, 2))),
            ("QEMU emulator version 9.1-rc1", Some((9, 1))),
            ("QEMU emulator version x", None),
            ("", None),
        ];
        for (text, expected) in cases {
            assert_eq!(version(text), expected, "{text}");
        }
        assert!((7, 2) < OLDEST_QEMU && (10, 0) > OLDEST_QEMU);
    }

    #[test]
    fn folders_with_libraries_are_found() {
        let mut tree = Tree::new(0);
        for path in [
            "usr/lib/x86_64-linux-gnu/libc.so.6",
            "usr/lib/x86_64-linux-gnu/pulseaudio/libpulsecommon-17.so",
            "usr/lib/x86_64-linux-gnu/gconv/UTF-16.so",
            "usr/share/libraries.so.txt",
        ] {
            tree.insert(path, Node::file(*b"", 0));
        }
        assert_eq!(
            library_folders(&tree),
            ["usr/lib/x86_64-linux-gnu", "usr/lib/x86_64-linux-gnu/pulseaudio"]
        );
    }

    #[test]
    fn a_folder_that_lost_a_file_is_not_used() {
        let dir = tempfile::tempdir().expect("a folder");
        let cache = Cache::open(Some(dir.path())).expect("a cache");
        let (asked, content) = (key(&[b"asked"]), key(&[b"content"]));
        let folder = cache.derived(FOLDERS, &content);
        fs::create_dir_all(folder.join("usr/bin")).expect("a folder");
        fs::write(folder.join("usr/bin/tool"), b"program").expect("a file");
        let list = Listed {
            libraries: vec!["usr/lib/a".into(), "usr/lib/b".into()],
            files: vec![("usr/bin/tool".into(), 7)],
        };
        cache.write_derived(LISTS, &content, &to_json(&list)).expect("kept");
        let kept = Kept { content: hex(&content), asked_at: 5 };
        cache.write_derived(ASKED, &asked, &to_json(&kept)).expect("kept");

        let (kept, exported) = Kept::read(&cache, &asked).expect("read").expect("whole");
        assert_eq!(kept.asked_at, 5);
        let launcher = exported.launcher("tool").expect("there");
        let text: Vec<_> = launcher.iter().map(|a| a.to_string_lossy()).collect();
        let below = folder.display();
        assert_eq!(text[3], format!("{below}/usr/lib/a:{below}/usr/lib/b"));
        assert_eq!(text[4], format!("{below}/usr/bin/tool"));
        let error = exported.launcher("other").expect_err("absent").to_string();
        assert_eq!(error, "there is no program `other` among the tools");

        fs::write(folder.join("usr/bin/tool"), b"").expect("a file");
        assert!(Kept::read(&cache, &asked).expect("read").is_none());
    }
}
