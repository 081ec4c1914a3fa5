//! Independent judges of a built image: programs and parsers that are not Berth's own.

use contract::Slot;
use contract::layout::Partition;
use contract::manifest::Manifest;
use e2e::*;
use image_builder::cache::parse_hex;
use image_builder::inspect;
use rustix::fs::{SeekFrom, seek};
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs::File;
use std::io::{Read, Seek, Write};
use std::path::Path;
use std::process::Stdio;
use tempfile::NamedTempFile;

#[test]
fn partition_tables_please_sgdisk() {
    for image in [demo_image(), containerd_image()] {
        let text = judge("sgdisk", ["-v".as_ref(), image.as_os_str()]);
        // It succeeds whatever it finds.
        assert!(text.contains("No problems found."), "{text}");
    }
}

#[test]
fn the_esp_pleases_fsck() {
    let esp = extract(containerd_image(), Partition::Esp);
    judge("fsck.vfat", ["-n".as_ref(), esp.path().as_os_str()]);
}

#[test]
fn the_root_pleases_e2fsck_and_its_tree_veritysetup() {
    for image in [demo_image(), containerd_image()] {
        let root = extract(image, Partition::Root(Slot::A));
        let tree = extract(image, Partition::Verity(Slot::A));
        let root_hash = manifest(image).root_hash;
        judge("e2fsck", ["-fn".as_ref(), root.path().as_os_str()]);
        let args = [root.path().as_os_str(), tree.path().as_os_str(), root_hash.as_ref()];
        judge("veritysetup", ["verify".as_ref()].into_iter().chain(args));
    }
}

#[test]
fn the_root_is_what_the_packages_ship_and_nothing_unexpected() {
    for image in [demo_image(), containerd_image()] {
        let manifest = manifest(image);
        let found = read_root(image);
        let shipped = Shipped::of(&manifest);
        let own = own_paths(&manifest, image == demo_image());
        let mut wrong = Vec::new();
        let mut from_packages = 0;
        for (path, node) in &found {
            let own = own.iter().any(|own| own == path);
            match shipped.paths.get(path) {
                // Berth's own word counts over that of a package.
                _ if own => {}
                None => wrong.push(format!("/{path} is in no package: {node:?}")),
                Some(packages) => {
                    from_packages += 1;
                    let same = |(_, shipped): &(String, Node)| shipped.is(node, path);
                    if !packages.iter().any(same) {
                        wrong.push(format!("/{path} is {node:?}, shipped as {packages:?}"));
                    }
                }
            }
        }
        let missing = own.iter().filter(|path| !found.contains_key(*path));
        wrong.extend(missing.map(|path| format!("/{path} is not there")));
        assert!(wrong.is_empty(), "{} wrong:\n{}", wrong.len(), wrong.join("\n"));
        assert!(from_packages > 1000, "only {from_packages} paths are from packages");
    }
}

#[test]
fn the_root_holds_no_shell_no_interpreter_no_package_manager() {
    const ABSENT: [&str; 21] = [
        "apt",
        "apt-get",
        "ash",
        "awk",
        "bash",
        "csh",
        "dash",
        "dpkg",
        "dpkg-deb",
        "ksh",
        "mawk",
        "perl",
        "python3",
        "rbash",
        "ssh",
        "sshd",
        "su",
        "sudo",
        "systemctl",
        "systemd",
        "zsh",
    ];
    for image in [demo_image(), containerd_image()] {
        let found = read_root(image);
        for (path, node) in &found {
            let name = path.rsplit('/').next().unwrap_or(path);
            assert!(!ABSENT.contains(&name), "/{path} is there");
            assert_eq!(node.mode & 0o6000, 0, "/{path} is setuid or setgid: {node:?}");
            for folder in ["usr/lib/systemd", "var/lib/dpkg", "etc/apt", "usr/share/perl5"] {
                assert_ne!(path, folder);
            }
        }
        // These images have the debug shell, and that is all there is of shells.
        let shells: Vec<_> = found
            .iter()
            .filter(|(path, _)| path.ends_with("/sh") || path.ends_with("/busybox"))
            .map(|(path, node)| (path.as_str(), node.target.as_deref()))
            .collect();
        assert_eq!(shells, [("usr/bin/busybox", None), ("usr/bin/sh", Some("busybox"))]);
    }
}

#[test]
fn the_module_index_is_what_depmod_makes() {
    let image = containerd_image();
    let release = manifest(image).kernel;
    let folder = tempfile::tempdir().expect("a folder");
    let (root, none) = (folder.path().join("root"), folder.path().join("none"));
    for path in [&root.join("lib/modules"), &none] {
        std::fs::create_dir_all(path).expect("a folder");
    }
    let lib = root.join("lib/modules");
    debugfs(image, &format!("rdump /usr/lib/modules/{release} {}\n", lib.display()));
    let lib = lib.join(&release);
    let read = |name: &str| {
        std::fs::read_to_string(lib.join(name)).unwrap_or_else(|e| panic!("{name}: {e}"))
    };
    let names = ["modules.dep", "modules.alias", "modules.softdep"];
    let ours = names.map(read);
    for name in names {
        std::fs::remove_file(lib.join(name)).expect("removed");
    }
    // A folder without configuration, so that this machine's has no say.
    let args = ["-C".as_ref(), none.as_os_str(), "-b".as_ref(), root.as_os_str()];
    judge("depmod", args.into_iter().chain([release.as_ref()]));
    let theirs = names.map(read);
    assert_eq!(needs(&ours[0]), needs(&theirs[0]), "modules.dep");
    for i in [1, 2] {
        let differ = ours[i].lines().zip(theirs[i].lines()).find(|(ours, theirs)| ours != theirs);
        assert_eq!(differ, None, "{}", names[i]);
        assert!(ours[i] == theirs[i], "{} has another length", names[i]);
    }
}

/// `modules.dep`: what each module needs.
fn needs(text: &str) -> BTreeMap<&str, BTreeSet<&str>> {
    let lines = text.lines().map(|line| line.split_once(':').expect("a colon"));
    lines.map(|(module, needed)| (module, needed.split_whitespace().collect())).collect()
}

/// What a path is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Node {
    /// Type and permissions, as in `st_mode`.
    mode: u32,
    uid: u64,
    gid: u64,
    /// Of a regular file.
    size: Option<u64>,
    /// Of a symbolic link.
    target: Option<String>,
}

impl Node {
    /// Whether this, in a package, became `other`. Kernel modules are unpacked on the way.
    fn is(&self, other: &Node, path: &str) -> bool {
        let size = match path.ends_with(".ko") {
            true => other.size,
            false => self.size,
        };
        Node { size, ..self.clone() } == *other
    }
}

/// Paths that no package ships, or that Berth writes over those of packages.
fn own_paths(manifest: &Manifest, docker: bool) -> Vec<String> {
    const ALWAYS: &str = "
        bin dev etc lib lib64 lost+found mnt opt proc root run sbin srv sys tmp usr var
        usr/bin usr/lib usr/lib64 usr/sbin
        etc/containerd/certs.d etc/group etc/hostname etc/hosts etc/machine-id etc/mtab etc/nsswitch.conf etc/os-release
        etc/passwd etc/resolv.conf etc/ssl/certs/ca-certificates.crt
        usr/lib/os-release usr/lib/berth usr/lib/berth/build-time usr/lib/berth/images usr/lib/berth/init
        usr/lib/berth/modules.last usr/lib/berth/modules.load usr/lib/berth/packages.json
        usr/sbin/init usr/sbin/modprobe usr/bin/sh usr/bin/berth-updater";
    const CONTAINERD: &str = "usr/lib/berth/host.toml";
    const DOCKER: &str = "
        etc/docker/certs.d
        usr/lib/berth/images/nginx.tar usr/lib/berth/images/nginx.tar.identity
        usr/lib/berth/images/postgres.tar usr/lib/berth/images/postgres.tar.identity
        usr/sbin/iptables usr/sbin/iptables-save usr/sbin/iptables-restore
        usr/sbin/ip6tables usr/sbin/ip6tables-save usr/sbin/ip6tables-restore";
    let modules = ["dep", "alias", "softdep"]
        .map(|name| format!("usr/lib/modules/{}/modules.{name}", manifest.kernel));
    let own = if docker { DOCKER } else { CONTAINERD };
    let paths = ALWAYS.split_whitespace().chain(own.split_whitespace());
    paths.map(str::to_owned).chain(modules).collect()
}

fn manifest(image: &Path) -> Manifest {
    let name = image.file_stem().expect("a name").to_string_lossy();
    let path = image.with_file_name(format!("{name}.manifest.json"));
    let text = std::fs::read_to_string(path).expect("a manifest");
    serde_json::from_str(&text).expect("a manifest")
}

/// Where a partition of slot A lies: offset and length.
fn place(image: &Path, partition: Partition) -> (u64, u64) {
    let report = inspect::inspect(image).expect("an image");
    let mut partitions = report.partitions.iter();
    let found = partitions.find(|p| p.label == partition.label()).expect("a partition");
    (found.offset, found.size)
}

/// A partition as a sparse file of its own.
fn extract(image: &Path, partition: Partition) -> NamedTempFile {
    let (offset, len) = place(image, partition);
    let mut from = File::open(image).expect("an image");
    let mut to = NamedTempFile::new().expect("a file");
    to.as_file().set_len(len).expect("a sparse file");
    let end = offset + len;
    let mut at = offset;
    while let Ok(data) = seek(&from, SeekFrom::Data(at)) {
        if data >= end {
            break;
        }
        let hole = seek(&from, SeekFrom::Hole(data)).expect("the end of the data").min(end);
        from.seek(std::io::SeekFrom::Start(data)).expect("there");
        to.seek(std::io::SeekFrom::Start(data - offset)).expect("there");
        std::io::copy(&mut (&mut from).take(hole - data), &mut to).expect("copied");
        at = hole;
    }
    to.flush().expect("written");
    to
}

/// Runs commands of debugfs on the root; returns what they printed.
fn debugfs(image: &Path, commands: &str) -> String {
    let mut file = NamedTempFile::new().expect("a file");
    file.write_all(commands.as_bytes()).expect("written");
    let (offset, _) = place(image, Partition::Root(Slot::A));
    let device = format!("{}?offset={offset}", image.display());
    let file = file.path().to_str().expect("a plain path");
    judge("debugfs", ["-f", file, &device])
}

/// Every path below the root, by its name without the first slash.
fn read_root(image: &Path) -> BTreeMap<String, Node> {
    const ROOT: u64 = 2;
    let mut found = BTreeMap::new();
    let mut links = HashMap::new();
    let mut folders = HashMap::from([(ROOT, String::new())]);
    while !folders.is_empty() {
        let commands: String = folders.keys().map(|inode| format!("ls -p <{inode}>\n")).collect();
        let mut below = HashMap::new();
        let mut folder = "";
        // Each line is /INODE/MODE/UID/GID/NAME/SIZE/; a folder's own entry comes first.
        for line in debugfs(image, &commands).lines().filter(|line| line.starts_with('/')) {
            let fields: Vec<&str> = line.split('/').collect();
            let [_, inode, mode, uid, gid, name, size, _] = fields[..] else {
                panic!("debugfs: {line}");
            };
            let inode: u64 = inode.parse().expect("an inode");
            match name {
                "." => folder = folders[&inode].as_str(),
                ".." | "" => {}
                _ => {
                    let path = format!("{folder}{name}");
                    let mode = u32::from_str_radix(mode, 8).expect("a mode");
                    let kind = mode & 0o170000;
                    if kind == 0o040000 {
                        below.insert(inode, format!("{path}/"));
                    } else if kind == 0o120000 {
                        links.insert(inode, path.clone());
                    }
                    let size = (kind == 0o100000).then(|| size.parse().expect("a size"));
                    let (uid, gid) = (uid.parse().expect("a user"), gid.parse().expect("a group"));
                    let node = Node { mode, uid, gid, size, target: None };
                    assert_eq!(found.insert(path, node), None, "{line} is there twice");
                }
            }
        }
        folders = below;
    }
    for (inode, target) in link_targets(image, links.keys()) {
        found.get_mut(&links[&inode]).expect("a link").target = Some(target);
    }
    found
}

/// The targets of symbolic links by inode: short ones are in the inode, others in a block.
fn link_targets<'a>(image: &Path, inodes: impl Iterator<Item = &'a u64>) -> Vec<(u64, String)> {
    let commands: String = inodes.map(|inode| format!("stat <{inode}>\n")).collect();
    let text = debugfs(image, &commands);
    let each = text.split("Inode: ").skip(1).map(|stat| {
        let inode = stat.split_whitespace().next().and_then(|n| n.parse().ok()).expect("an inode");
        let fast = stat.split_once("Fast link dest: \"").and_then(|(_, rest)| rest.split_once('"'));
        let target = fast.map(|(target, _)| target.to_owned());
        let block = || debugfs(image, &format!("cat <{inode}>\n"));
        let slow = || block().lines().nth(1).expect("a target").to_owned();
        (inode, target.unwrap_or_else(slow))
    });
    each.collect()
}

/// What packages ship, by path: the package's name and what it says of the path.
struct Shipped {
    paths: HashMap<String, Vec<(String, Node)>>,
}

impl Shipped {
    fn of(manifest: &Manifest) -> Shipped {
        let mut paths: HashMap<String, Vec<(String, Node)>> = HashMap::new();
        for package in &manifest.packages {
            let sha256 = parse_hex(&package.sha256).expect("a SHA-256");
            let deb = cache().blob(&sha256);
            let bytes = std::fs::read(&deb).expect("the package is in the cache");
            assert_eq!(Sha256::digest(&bytes)[..], sha256, "package {}", package.name);
            let mut command = checker("dpkg-deb");
            command.arg("--fsys-tarfile").arg(&deb).stdout(Stdio::piped());
            let mut child = command.spawn().expect("dpkg-deb starts");
            let mut sizes = HashMap::new();
            let mut archive = tar::Archive::new(child.stdout.take().expect("its output"));
            for entry in archive.entries().expect("a tar archive") {
                let (path, node) = member(&entry.expect("a member"), &sizes);
                if let Some(size) = node.size {
                    sizes.insert(path.clone(), size);
                }
                paths.entry(path).or_default().push((package.name.clone(), node));
            }
            // Only what is read to its end lets the program end well.
            std::io::copy(&mut archive.into_inner(), &mut std::io::sink()).expect("the rest");
            assert!(child.wait().expect("it ends").success(), "dpkg-deb: {}", package.name);
        }
        Shipped { paths }
    }
}

/// A member of a package, with its name on a system with merged /usr. `sizes` are those of the
/// members before it, which hard links name.
fn member(entry: &tar::Entry<'_, impl Read>, sizes: &HashMap<String, u64>) -> (String, Node) {
    let header = entry.header();
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("a name in UTF-8");
    let link = entry.link_name_bytes().map(|name| text(&name));
    let (kind, size, target) = match header.entry_type() {
        tar::EntryType::Regular => (0o100000, Some(entry.size()), None),
        tar::EntryType::Directory => (0o040000, None, None),
        tar::EntryType::Symlink => (0o120000, None, link),
        tar::EntryType::Link => {
            (0o100000, Some(sizes[&merged(&link.expect("what it links to"))]), None)
        }
        other => panic!("a member of type {other:?}"),
    };
    let path = merged(&text(&entry.path_bytes()));
    let path = match path.strip_suffix(".ko.xz") {
        Some(module) => format!("{module}.ko"),
        None => path,
    };
    let (mode, uid, gid) = (header.mode(), header.uid(), header.gid());
    let node = Node {
        mode: kind | mode.expect("a mode") & 0o7777,
        uid: uid.expect("a user"),
        gid: gid.expect("a group"),
        size,
        target,
    };
    (path, node)
}

/// `./lib/x/` is `usr/lib/x`.
fn merged(path: &str) -> String {
    let path = path.trim_start_matches("./").trim_end_matches('/');
    match path.split('/').next() {
        Some("bin" | "sbin" | "lib" | "lib64") => format!("usr/{path}"),
        _ => path.to_owned(),
    }
}
