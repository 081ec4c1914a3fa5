//! What an image would let run: programs, privileges that come with files, shells, and the sockets
//! that somebody listens on.

use super::disk::Disk;
use super::gather;
use super::show::clean;
use crate::image::verity::Range;
use crate::{Error, Result};
use contract::layout::{CMDLINE_DEBUG_SHELL, Partition, Slot};
use contract::record::State;
use contract::update_status;
use mkext4::reader::{Fs, ReadAt};
use mkext4::spec::ROOT_INO;
use mkext4::spec::inode::FileType;
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{self, Display, Formatter};
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

/// Names of programs that run what somebody types, or that are many programs in one.
const SHELLS: [&str; 19] = [
    "ash", "bash", "busybox", "csh", "dash", "elvish", "fish", "ksh", "ksh93", "lksh", "mksh",
    "nu", "pwsh", "rbash", "sh", "tcsh", "toybox", "yash", "zsh",
];

const SET_USER_ID: u16 = 0o4000;
const SET_GROUP_ID: u16 = 0o2000;
const EXECUTABLE: u16 = 0o111;

/// More entries than this, or deeper ones, are no host's root.
const MOST_ENTRIES: usize = 1 << 20;
const DEEPEST: usize = 64;
/// Longest configuration of dockerd that is read.
const CONFIG_LIMIT: u64 = 1 << 20;

/// What `berth inspect --audit` shows.
#[derive(Clone, Debug, Serialize)]
pub struct Audit {
    /// The file.
    pub image: String,
    /// Each slot that holds a system.
    pub slots: Vec<AuditedSlot>,
}

/// What the root of a slot would let run.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct AuditedSlot {
    /// `a` or `b`.
    pub slot: String,
    /// Release version.
    pub version: String,
    /// Whether the image is marked as one for development, which may have a shell.
    pub debug_shell: bool,
    /// Files that somebody may execute.
    pub executables: Vec<String>,
    /// Files that run as another user than the one who starts them.
    pub set_user_id: Vec<String>,
    /// Files that run as another group.
    pub set_group_id: Vec<String>,
    /// Files that give capabilities to who starts them.
    pub capabilities: Vec<String>,
    /// Shells, and links with the name of one.
    pub shells: Vec<String>,
    /// Sockets that the host itself listens on once it is ready, whoever can reach them.
    pub listening: Vec<Listening>,
}

/// A socket that somebody listens on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Listening {
    /// A path, or `tcp://ADDRESS`.
    pub address: String,
    /// The program.
    pub by: String,
}

impl Audit {
    /// What nobody should run on a host, one line each.
    pub fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        for slot in &self.slots {
            let mut add = |paths: &[String], why: &str| {
                let line = |path: &String| format!("slot {}: {} {why}", slot.slot, clean(path));
                problems.extend(paths.iter().map(line));
            };
            if !slot.debug_shell {
                add(&slot.shells, "is a shell, and the image is not marked as debug");
            }
            add(&slot.set_user_id, "is set-user-ID");
            add(&slot.set_group_id, "is set-group-ID");
            add(&slot.capabilities, "gives capabilities to who starts it");
        }
        problems
    }

    /// An error that names the first problem.
    pub fn judge(&self) -> Result<()> {
        let problems = self.problems();
        let Some(first) = problems.first() else { return Ok(()) };
        let more = match problems.len() {
            1 => String::new(),
            count => format!(" (and {} more)", count - 1),
        };
        Err(Error::corrupt(format!("{}: {first}{more}", self.image)).with_hint(
            "leave it out with `drop`, or keep the package that brings it out of `packages`",
        ))
    }
}

/// Looks at every slot of `disk` that holds a system.
pub fn audit(disk: &Disk) -> Result<Audit> {
    let record = gather::stored(disk)?.record;
    let record = record.ok_or_else(|| wrong(disk, "there is no boot record"))?;
    let mut slots = Vec::new();
    for slot in Slot::ALL.into_iter().filter(|slot| record[*slot].state != State::Empty) {
        let entry = &record[slot];
        let found = gather::sections(disk, slot, entry.uki_len).map_err(|why| wrong(disk, &why))?;
        let cmdline = found.text(".cmdline").unwrap_or_default();
        let label = Partition::Root(slot).label();
        let range = disk.range(Partition::Root(slot)).map_err(|why| wrong(disk, &why))?;
        let root = Root::read(Source { file: &disk.file, range })
            .map_err(|e| wrong(disk, &format!("{label}: {e}")))?;
        slots.push(AuditedSlot {
            slot: slot.to_string(),
            version: entry.version.to_string(),
            debug_shell: cmdline.split_whitespace().any(|word| word == CMDLINE_DEBUG_SHELL),
            ..root.audit()
        });
    }
    match slots.is_empty() {
        true => Err(wrong(disk, "both slots are empty")),
        false => Ok(Audit { image: disk.path.display().to_string(), slots }),
    }
}

fn wrong(disk: &Disk, what: &str) -> Error {
    Error::corrupt(format!("{}: {what}", disk.path.display()))
}

struct Source<'a> {
    file: &'a File,
    range: Range,
}

impl ReadAt for Source<'_> {
    fn read_exact_at(&self, offset: u64, bytes: &mut [u8]) -> io::Result<()> {
        let end = offset.checked_add(bytes.len() as u64);
        match end.is_some_and(|end| end <= self.range.len) {
            true => FileExt::read_exact_at(self.file, bytes, self.range.offset + offset),
            false => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }
}

/// A file or a link.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Entry {
    kind: FileType,
    /// Permissions with the bits above them.
    mode: u16,
    capabilities: bool,
}

/// Everything in a root but folders.
#[derive(Debug, Default)]
struct Root {
    entries: BTreeMap<String, Entry>,
    /// `/etc/docker/daemon.json`, where there is one.
    docker_config: Option<Vec<u8>>,
}

impl Root {
    fn read<R: ReadAt>(source: R) -> mkext4::Result<Root> {
        let fs = Fs::open(source)?;
        let mut root = Root::default();
        let mut seen = BTreeSet::from([ROOT_INO]);
        let mut folders = vec![(ROOT_INO, String::new(), 0)];
        while let Some((folder, path, depth)) = folders.pop() {
            for entry in fs.read_dir(folder)? {
                if entry.inode == 0 || entry.name == b"." || entry.name == b".." {
                    continue;
                }
                let name = format!("{path}/{}", String::from_utf8_lossy(&entry.name));
                let inode = fs.inode(entry.inode)?;
                let kind = inode.file_type();
                if kind == FileType::Dir {
                    // A folder that is there twice would be walked for ever.
                    if depth == DEEPEST || !seen.insert(entry.inode) {
                        return Err(too_much(&name));
                    }
                    folders.push((entry.inode, name, depth + 1));
                    continue;
                }
                if root.entries.len() == MOST_ENTRIES {
                    return Err(too_much(&name));
                }
                if name == DOCKER_CONFIG && inode.size <= CONFIG_LIMIT && kind == FileType::Regular
                {
                    root.docker_config = Some(fs.read_file(entry.inode)?);
                }
                let attributes = fs.xattrs(entry.inode)?;
                let capability =
                    |name: Option<Vec<u8>>| name.as_deref() == Some(b"security.capability");
                let capabilities = attributes.iter().any(|a| capability(a.full_name()));
                let mode = inode.mode & 0o7777;
                root.entries.insert(name, Entry { kind, mode, capabilities });
            }
        }
        Ok(root)
    }

    fn audit(&self) -> AuditedSlot {
        let files = |wanted: &dyn Fn(&Entry) -> bool| -> Vec<String> {
            let found = self.entries.iter().filter(|(_, entry)| wanted(entry));
            found.map(|(path, _)| path.clone()).collect()
        };
        let regular = |bits: u16| {
            files(&|entry: &Entry| entry.kind == FileType::Regular && entry.mode & bits != 0)
        };
        let is_shell = |path: &str, entry: &Entry| {
            let name = path.rsplit('/').next().unwrap_or(path);
            let runs = entry.kind == FileType::Symlink || entry.mode & EXECUTABLE != 0;
            runs && SHELLS.contains(&name)
        };
        let shells = self.entries.iter().filter(|(path, entry)| is_shell(path, entry));
        AuditedSlot {
            executables: regular(EXECUTABLE),
            set_user_id: regular(SET_USER_ID),
            set_group_id: regular(SET_GROUP_ID),
            capabilities: files(&|entry: &Entry| entry.capabilities),
            shells: shells.map(|(path, _)| path.clone()).collect(),
            listening: self.listening(),
            ..AuditedSlot::default()
        }
    }

    /// By the programs that are there. What workloads publish, the host configuration says.
    fn listening(&self) -> Vec<Listening> {
        let by_program = LISTENING.iter().filter(|(by, _)| self.entries.contains_key(*by));
        let mut found: Vec<_> = by_program.map(|(by, address)| listening(by, address)).collect();
        if self.entries.contains_key(DOCKERD) {
            let config = self.docker_config.as_deref().unwrap_or_default();
            let config: serde_json::Value = serde_json::from_slice(config).unwrap_or_default();
            let hosts = config["hosts"].as_array().into_iter().flatten();
            let hosts = hosts.filter_map(|host| host.as_str()).filter(|host| *host != DOCKER_HOST);
            found.extend(hosts.map(|host| listening(DOCKERD, host.trim_start_matches("unix://"))));
        }
        found
    }
}

const DOCKER_CONFIG: &str = "/etc/docker/daemon.json";
const DOCKERD: &str = "/usr/sbin/dockerd";
const DOCKER_HOST: &str = "unix:///run/docker.sock";
const CONTAINERD: &str = "/usr/bin/containerd";

/// What each program listens on as init starts it, `*` for any text.
const LISTENING: [(&str, &str); 6] = [
    (CONTAINERD, "/run/containerd/containerd.sock"),
    (CONTAINERD, "/run/containerd/containerd.sock.ttrpc"),
    ("/usr/bin/containerd-shim-runc-v2", "/run/containerd/s/*"),
    (DOCKERD, "/run/docker.sock"),
    (DOCKERD, "/run/docker/*"),
    ("/usr/bin/berth-updater", update_status::SOCKET),
];

fn listening(by: &str, address: &str) -> Listening {
    Listening { address: address.to_owned(), by: by.to_owned() }
}

fn too_much(path: &str) -> mkext4::Error {
    let why = format!("{} is beyond what a root holds", clean(path));
    mkext4::Error::Io(io::Error::new(io::ErrorKind::InvalidData, why))
}

impl Display for Audit {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.image)?;
        for slot in &self.slots {
            let debug = if slot.debug_shell { ", marked as debug" } else { "" };
            writeln!(f, "\nSlot {}: version {}{debug}", slot.slot, slot.version)?;
            for (title, paths) in [
                ("executables", &slot.executables),
                ("set-user-ID", &slot.set_user_id),
                ("set-group-ID", &slot.set_group_id),
                ("capabilities", &slot.capabilities),
                ("shells", &slot.shells),
            ] {
                writeln!(f, "  {title} ({})", paths.len())?;
                paths.iter().try_for_each(|path| writeln!(f, "    {}", clean(path)))?;
            }
            writeln!(f, "  listening sockets ({})", slot.listening.len())?;
            for Listening { address, by } in &slot.listening {
                writeln!(f, "    {:<40} {}", clean(address), clean(by))?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::ext4::{Identity, plan};
    use crate::tree::{Kind, Node, Tree};
    use mkext4::sink::{CheckingSink, VecSink};

    fn root(tree: &Tree) -> Root {
        let filesystem = plan(tree, &Identity { uuid: [3; 16], epoch: 9 }).expect("a layout");
        let mut sink = CheckingSink::new(VecSink::default());
        filesystem.write(&mut sink).expect("written");
        let bytes = sink.finish(filesystem.size()).expect("every byte once").buf;
        Root::read(&bytes[..]).expect("a root")
    }

    fn audit_of(slot: AuditedSlot) -> Audit {
        Audit { image: "x.raw".into(), slots: vec![slot] }
    }

    #[test]
    fn what_runs_is_found_wherever_it_is() {
        let mut tree = Tree::new(1);
        let program = |mode| Node::file(*b"x", 0).with_mode(mode);
        tree.insert("usr/bin/containerd", program(0o755));
        tree.insert("usr/sbin/dockerd", program(0o755));
        tree.insert("usr/bin/docker", program(0o711));
        tree.insert("usr/lib/x.so", program(0o644));
        tree.insert("opt/a/su", program(0o4755));
        tree.insert("opt/a/wall", program(0o2755));
        let mut ping = program(0o755);
        ping.xattrs.insert("security.capability".into(), b"cap".to_vec());
        tree.insert("opt/a/ping", ping);
        tree.insert("opt/deep/er/dash", program(0o700));
        // Content that merely has the name of one.
        tree.insert("usr/share/doc/bash", program(0o644));
        tree.insert("usr/bin/sh", Node::symlink("../../opt/deep/er/dash", 0));
        tree.insert("usr/bin/again", Node::new(Kind::HardLink("opt/a/su".into()), 0o4755, 0));
        let config = br#"{"hosts": ["tcp://0.0.0.0:2375", "unix:///run/docker.sock"]}"#;
        tree.insert("etc/docker/daemon.json", Node::file(*config, 0));
        let found = root(&tree).audit();
        assert_eq!(found.set_user_id, ["/opt/a/su", "/usr/bin/again"]);
        assert_eq!(found.set_group_id, ["/opt/a/wall"]);
        assert_eq!(found.capabilities, ["/opt/a/ping"]);
        assert_eq!(found.shells, ["/opt/deep/er/dash", "/usr/bin/sh"]);
        assert_eq!(found.executables.len(), 8, "{:?}", found.executables);
        let addresses: Vec<&str> = found.listening.iter().map(|l| l.address.as_str()).collect();
        let expected = [
            "/run/containerd/containerd.sock",
            "/run/containerd/containerd.sock.ttrpc",
            "/run/docker.sock",
            "/run/docker/*",
            "tcp://0.0.0.0:2375",
        ];
        assert_eq!(addresses, expected);

        let audit = audit_of(AuditedSlot { slot: "a".into(), ..found.clone() });
        assert_eq!(audit.problems().len(), 6);
        let error = audit.judge().expect_err("a shell").to_string();
        assert!(error.contains("slot a: /opt/deep/er/dash is a shell"), "{error}");
        assert!(error.ends_with("(and 5 more)"), "{error}");
        // A shell is what such an image is for; other privileges are not.
        let audit = audit_of(AuditedSlot { debug_shell: true, ..found });
        let error = audit.judge().expect_err("a set-user-ID file").to_string();
        assert!(error.contains("/opt/a/su is set-user-ID (and 3 more)"), "{error}");
    }

    #[test]
    fn a_root_with_nothing_but_programs_passes() {
        let mut tree = Tree::new(1);
        tree.insert("usr/bin/containerd", Node::file(*b"x", 0).with_mode(0o755));
        audit_of(root(&tree).audit()).judge().expect("nothing to object");
    }

    #[test]
    fn what_is_no_filesystem_is_an_error() {
        for bytes in [&[][..], &[0; 4096], &[0xff; 1 << 20]] {
            assert!(Root::read(bytes).is_err());
        }
    }
}
