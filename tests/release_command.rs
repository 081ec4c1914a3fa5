//! `berth keys` and `berth release` as a person types them: a whole life of a repository, and the
//! answer to every kind of bad input.

use contract::Slot;
use contract::layout::Partition;
use e2e::berth;
use e2e::transcript::Transcript;
use image_builder::definition::Sizes;
use image_builder::image::{disk, fat};
use image_builder::release::{self, KeyFolder, Lifetimes, Signing};
use image_builder::tree::{Node, Tree};
use jiff::{SignedDuration, Timestamp};
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

const MIB: u64 = 1 << 20;

/// A folder with keys.
fn session() -> Transcript {
    let mut session = Transcript::new();
    assert_eq!(session.berth("keys init keys"), Some(0));
    session.text.clear();
    session
}

/// What the tests below do over and over.
trait Steps {
    /// An image with a root filesystem of little but noise, as small as one can be.
    fn image(&self, name: &str, version: &str) -> PathBuf;
    /// Runs what has to succeed.
    fn done(&mut self, args: &str);
    /// Runs what has to fail and to leave everything as it is.
    fn refused(&mut self, args: &str);
    /// A repository in `repo` whose channel `stable` points to 1.0 and then to 1.1.
    fn publish(&mut self);
    /// Compares what was seen with what it should be, without digests and dates.
    fn shows(&self, name: &str);
}

impl Steps for Transcript {
    fn image(&self, name: &str, version: &str) -> PathBuf {
        let path = self.path(&format!("{name}-{version}.raw"));
        let mut tree = Tree::new(1);
        let noise: Vec<u8> = (0..400_000_u32).map(|i| (i.wrapping_mul(i) >> 9) as u8).collect();
        tree.insert("usr/bin/x", Node::file(noise, 2));
        tree.insert("etc/version", Node::file(version.as_bytes().repeat(999), 2));
        let program = program();
        let inputs = disk::Inputs {
            name,
            version,
            root: &tree,
            stub: &program,
            kernel: &program,
            kernel_release: "6.12",
            initramfs: &[5; 5000],
            os_release: &format!("ID=berth\nIMAGE_ID=\"{name}\"\n"),
            cmdline: "quiet",
            picker: &program,
            esp_files: &fat::Files::new(),
            sizes: Sizes { esp: 34 * MIB, boot: 2 * MIB, root: 20 * MIB, verity: MIB, data: MIB },
            sector_size: 512,
            source_date_epoch: 1_700_000_000,
        };
        disk::write(&inputs, &path).expect("an image");
        path
    }

    fn done(&mut self, args: &str) {
        assert_eq!(self.berth(args), Some(0), "{args}\n{}", self.text);
    }

    fn refused(&mut self, args: &str) {
        let before = files(self.folder());
        let code = self.berth(args);
        assert!(matches!(code, Some(1 | 2)), "{args}: {code:?}\n{}", self.text);
        assert_eq!(files(self.folder()), before, "{args}");
    }

    fn publish(&mut self) {
        for version in ["1.0", "1.1"] {
            self.image("host", version);
            self.done(&format!(
                "release add repo --keys keys --image host-{version}.raw --channel stable"
            ));
        }
    }

    fn shows(&self, name: &str) {
        self.compare(&format!("release-{name}"), |seen| blur(&seen));
    }
}

/// The smallest EFI program for x86-64 that has room for more sections. Nothing here is started.
fn program() -> Vec<u8> {
    let mut bytes = vec![0; 0x600];
    let (coff, optional, section) = (0x44, 0x58, 0x58 + 240);
    let mut put = |at: usize, value: &[u8]| bytes[at..at + value.len()].copy_from_slice(value);
    put(0, b"MZ");
    put(0x3c, &[0x40]);
    put(0x40, b"PE\0\0");
    put(coff, &0x8664_u16.to_le_bytes());
    put(coff + 2, &[1]);
    put(coff + 16, &[240]);
    put(optional, &0x20b_u16.to_le_bytes());
    for (field, value) in [(32, 0x1000_u32), (36, 0x200), (56, 0x3000), (60, 0x400)] {
        put(optional + field, &value.to_le_bytes());
    }
    put(section, b".text");
    for (field, value) in [(8, 4_u32), (12, 0x1000), (16, 0x200), (20, 0x400)] {
        put(section + field, &value.to_le_bytes());
    }
    bytes
}

/// Replaces digests, key ids and times, which are never the same.
fn blur(text: &str) -> String {
    let is_hex = |c: char| c.is_ascii_digit() || ('a'..='f').contains(&c);
    let mut out = String::new();
    for line in text.lines() {
        let mut rest = line;
        while let Some(c) = rest.chars().next() {
            let digits = rest.find(|c| !is_hex(c)).unwrap_or(rest.len());
            let (taken, shown) = match () {
                () if digits >= 32 => (digits, "[digest]"),
                () if digits == 8 => (8, "[id]"),
                () if rest.len() >= 20
                    && rest.as_bytes()[10] == b'T'
                    && rest.as_bytes()[19] == b'Z' =>
                {
                    (20, "[time]")
                }
                () if digits > 0 => (digits, &rest[..digits]),
                () => (c.len_utf8(), &rest[..c.len_utf8()]),
            };
            out += shown;
            rest = &rest[taken..];
        }
        out.push('\n');
    }
    // So are sizes of what is compressed.
    for unit in [" bytes", " KiB", " MiB"] {
        let mut parts: Vec<&str> = out.split(unit).collect();
        let last = parts.pop().unwrap_or_default();
        let number = |c: char| c.is_ascii_digit() || c == '.';
        let parts = parts.into_iter().map(|part| match part.trim_end_matches(number) {
            trimmed if trimmed.len() < part.len() => format!("{trimmed}[size]"),
            _ => format!("{part}{unit}"),
        });
        out = parts.collect::<String>() + last;
    }
    out
}

/// All files below `folder` with their sizes.
fn files(folder: &Path) -> Vec<(PathBuf, u64)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).expect("a folder") {
        let entry = entry.expect("an entry");
        match entry.file_type().expect("its type").is_dir() {
            true => found.extend(files(&entry.path())),
            false => found.push((entry.path(), entry.metadata().expect("metadata").len())),
        }
    }
    found.sort();
    found
}

#[test]
fn help() {
    let mut session = session();
    let commands = ["init", "rotate", "show"].map(|c| format!("keys {c}")).into_iter();
    let more = ["add", "promote", "withdraw", "list", "refresh", "gc", "verify"];
    for command in commands.chain(more.map(|c| format!("release {c}"))) {
        session.done(&format!("{command} -h"));
    }
    session.shows("help");
}

#[test]
fn the_life_of_a_repository() {
    let mut session = session();
    session.done("keys show keys");
    session.publish();
    session.image("host", "1.2");
    session.done("release add repo --keys keys --image host-1.2.raw --from 1.0 --from 1.1");
    session.done("release promote repo 1.2 --channel beta --keys keys");
    assert_eq!(session.berth("release promote repo 1.2 --channel beta --keys keys"), Some(3));
    session.done("release list repo");
    session.done("release withdraw repo 1.1 --keys keys");
    assert_eq!(session.berth("release withdraw repo 1.1 --keys keys"), Some(3));
    session.done("release gc repo --keep 1 --keys keys");
    assert_eq!(session.berth("release gc repo --keep 1 --keys keys"), Some(3));
    session.done("keys rotate keys timestamp");
    session.done("release refresh repo --keys keys");
    session.done("release list repo");
    session.done("release verify repo --root keys/1.root.json");
    session.shows("life");
}

#[test]
fn keys_that_are_wrong() {
    let mut session = session();
    session.publish();
    session.text.clear();
    session.refused("keys init keys");
    session.refused("keys init new --root-threshold 3 --root-keys 2");
    session.refused("keys init new --expires soon");
    session.refused("keys show absent");
    session.refused("keys show repo");
    session.refused("keys rotate keys mirrors");
    session.refused("release promote repo 1.0 --channel beta --keys absent");
    fs::write(session.path("keys/other.pem"), "-----BEGIN CERTIFICATE-----\n").expect("written");
    session.refused("release promote repo 1.0 --channel beta --keys keys");
    fs::remove_file(session.path("keys/other.pem")).expect("removed");
    session.done("keys init other");
    session.refused("release promote repo 1.0 --channel beta --keys other");
    for role in ["targets", "root"] {
        let keys = files(&session.path("keys")).into_iter().map(|(path, _)| path);
        let key = keys.into_iter().find(|p| p.to_string_lossy().contains(&format!("/{role}-")));
        let key = key.expect("a key");
        fs::rename(&key, session.path("away.pem")).expect("moved");
        match role {
            "root" => session.refused("keys rotate keys timestamp"),
            _ => session.refused("release promote repo 1.0 --channel beta --keys keys"),
        }
        fs::rename(session.path("away.pem"), key).expect("moved back");
    }
    fs::write(session.path("keys/1.root.json"), "{}").expect("written");
    session.refused("keys show keys");
    session.shows("keys");
}

#[test]
fn what_cannot_be_published() {
    let mut session = session();
    session.publish();
    session.text.clear();
    session.image("other", "2.0");
    session.image("host", "1.2");
    session.image("host", "0.9");
    fs::write(session.path("text.raw"), "text").expect("written");
    let damaged = session.path("damaged.raw");
    let mut bytes = fs::read(session.path("host-1.2.raw")).expect("an image");
    let at = bytes.windows(9).position(|w| w == b"1.21.21.2").expect("content of a file");
    bytes[at] ^= 1;
    fs::write(damaged, bytes).expect("written");
    for args in [
        "",
        "--image absent.raw",
        "--image keys",
        "--image text.raw",
        "--image damaged.raw",
        "--image other-2.0.raw",
        "--image host-1.1.raw",
        "--image host-0.9.raw --channel stable",
        "--image host-1.2.raw --channel Stable",
        "--image host-1.2.raw --from 3",
        "--image host-1.2.raw --min-version 1.3",
        "--image host-1.2.raw --min-from 1.2",
        "--image host-1.2.raw --build x.toml",
        "--build absent.toml",
    ] {
        session.refused(&format!("release add repo --keys keys {args}"));
    }
    for keys in ["absent", "."] {
        session.refused(&format!("release add repo --image host-1.2.raw --keys {keys}"));
    }
    session.refused("release add keys --keys keys --image host-1.2.raw");
    session.refused("release add text.raw --keys keys --image host-1.2.raw");
    session.shows("refused");
}

#[test]
fn repositories_that_are_none_or_damaged() {
    let mut session = session();
    session.publish();
    session.text.clear();
    for args in [
        "list absent",
        "list https://updates.example/host",
        "verify keys",
        "gc absent --keep 1 --keys keys",
        "gc repo --keep x --keys keys",
        "promote repo 7 --channel stable --keys keys",
        "withdraw repo 7 --keys keys",
        "promote repo 1.0 --channel stable --keys keys",
    ] {
        session.refused(&format!("release {args}"));
    }
    session.done("keys init other");
    session.refused("release verify repo --root other/root.json");
    let largest = files(&session.path("repo/content")).into_iter().max_by_key(|(_, len)| *len);
    let (largest, len) = largest.expect("content");
    let pack = fs::read(&largest).expect("content");
    File::options().write(true).open(&largest).and_then(|f| f.set_len(len - 1)).expect("cut");
    session.refused("release verify repo");
    fs::write(&largest, pack).expect("mended");
    fs::remove_file(session.path("repo/metadata/1.root.json")).expect("removed");
    session.refused("release verify repo");
    session.refused("release promote repo 1.1 --channel beta --keys keys");
    session.shows("damaged");
}

#[test]
fn signatures_that_have_expired() {
    let mut session = session();
    session.image("host", "1.0");
    let keys = KeyFolder::open(&session.path("keys")).expect("keys");
    let now = Timestamp::now() - SignedDuration::from_hours(24 * 31);
    let signing = Signing { keys: &keys, lifetimes: Lifetimes::default(), now };
    let new = release::NewRelease::default();
    let image = session.path("host-1.0.raw");
    release::add(&session.path("repo"), &image, &new, &signing).expect("published a month ago");
    session.refused("release verify repo");
    session.done("release refresh repo --keys keys");
    session.done("release verify repo");
    session.shows("expired");
}

#[test]
fn the_trusted_root_lies_in_the_image() {
    let mut session = session();
    let definition = "name = \"host\"\nversion = \"1\"\nsuite = \"trixie\"\nruntime = \"containerd\"\n\
        [update]\nroot = \"keys/root.json\"\nrepository = \"https://updates.example/host\"\n";
    fs::write(session.path("host.toml"), definition).expect("written");
    let small = "--set partitions.root=300MiB --set partitions.data=64MiB";
    session.done(&format!("build host.toml -o out {small}"));
    let image = session.path("out/host-1.raw");
    let place = e2e::place(&image, Partition::Root(Slot::A));
    let mut root = vec![0; place.size as usize];
    let file = File::open(&image).expect("the image");
    file.read_exact_at(&mut root, place.offset).expect("read");
    let trusted = fs::read(session.path("keys/root.json")).expect("root metadata");
    let holds = |wanted: &[u8]| root.chunks(4096).any(|block| block.starts_with(wanted));
    assert!(holds(&trusted), "the root metadata is in no file of the root");
    let line = b"[update]\nrepository = \"https://updates.example/host\"\n";
    assert!(holds(line), "the repository is not in the host configuration");
}

#[test]
fn two_at_once() {
    let mut session = session();
    session.publish();
    session.text.clear();
    let lock = File::options().write(true).open(session.path("repo/.lock")).expect("the lock");
    lock.lock().expect("locked");
    session.refused("release promote repo 1.1 --channel beta --keys keys");
    drop(lock);
    session.done("release promote repo 1.1 --channel beta --keys keys");
    session.shows("lock");
}

/// A limit of file sizes stands for a full disk, which takes root to make.
#[test]
fn a_disk_that_is_full() {
    let mut session = session();
    session.publish();
    session.image("host", "1.2");
    let before = files(&session.path("repo"));
    let mut command = Command::new("sh");
    command.args(["-c", "ulimit -f 100; exec \"$0\" \"$@\""]).arg(berth());
    command.args(["release", "add", "repo", "--keys", "keys", "--image", "host-1.2.raw"]);
    let output = command.current_dir(session.folder()).output().expect("berth starts");
    assert_eq!(output.status.code(), Some(1));
    let errors = String::from_utf8(output.stderr).expect("text");
    assert!(errors.contains("error: write ") && errors.contains("hint: "), "{errors}");
    assert_eq!(files(&session.path("repo")), before);
    session.done("release verify repo");
}

/// Kills `add` at moments that spread over its whole run.
#[test]
fn killed_at_any_moment_the_repository_stays_valid() {
    let mut session = session();
    session.publish();
    session.image("host", "1.2");
    let add = "release add repo --keys keys --image host-1.2.raw --channel stable";
    let mut killed = 0;
    for delay in 0.. {
        let mut command = session.command(add);
        let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        let mut child = child.expect("berth starts");
        // The moments are what is varied here; nothing waits for anything.
        std::thread::sleep(Duration::from_millis(delay * delay * 2));
        killed += u32::from(child.try_wait().expect("its state").is_none());
        child.kill().expect("killed, or ended before");
        child.wait().expect("ended");
        session.done("release verify repo --root keys/1.root.json");
        let list = session.command("release list repo --json").output().expect("berth starts");
        if String::from_utf8_lossy(&list.stdout).contains("\"1.2\"") {
            break;
        }
    }
    assert!(killed > 3, "killed only {killed} times");
}
