//! What a person sees: help, and the answer to every kind of bad input, by running `berth`.

mod files;

use e2e::transcript::Transcript;
use e2e::{berth, build, cache, toolset};
use image_builder::cache::{Cache, Hashing, hex, key, parse_hex};
use rustix::process::Signal;
use std::fs::FileTimes;
use std::net::TcpListener;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, ExitStatus};
use std::time::{Duration, SystemTime};

/// A folder with a definition `host.toml` that builds and an empty folder `out`.
fn session() -> Transcript {
    // Packages and indexes are in the cache after this, so that nothing below needs a network.
    build("configs/containerd.toml", &["name=e2e-command-line"]);
    let session = Transcript::new();
    std::fs::create_dir(session.path("out")).expect("a folder");
    session.write("host.toml", DEFINITION);
    session
}

/// What the tests below do over and over.
trait Steps {
    /// Runs what has to fail and to leave the folder `out` empty.
    fn refused(&mut self, args: &str);
    /// Compares what was seen with what it should be. `unstable` texts are shown as `[...]`.
    fn shows(self, name: &str, unstable: &[&str]);
}

impl Steps for Transcript {
    fn refused(&mut self, args: &str) {
        let code = self.berth(args);
        assert!(matches!(code, Some(1 | 2)), "{args}: {code:?}\n{}", self.text);
        let left = names(&self.path("out"));
        assert!(left.is_empty(), "{args}: left behind {left:?}");
    }

    fn shows(self, name: &str, unstable: &[&str]) {
        let hide = |seen: String, text: &&str| seen.replace(*text, "[...]");
        self.compare(name, |seen| unstable.iter().fold(seen, hide));
    }
}

/// A small host.
const DEFINITION: &str = "name = \"host\"\nversion = \"1\"\nsuite = \"trixie\"\n\
                          runtime = \"containerd\"\nkernel = \"cloud\"\n";

/// A small container, of packages that the host has too.
const BOX: &str = "name = \"box\"\ntag = \"1\"\nsuite = \"trixie\"\nbase = [\"libc6\"]\n\
                   packages = [\"runc\"]\nentrypoint = [\"/usr/sbin/runc\"]\n";

/// Partitions that leave little to hash.
const SMALL: &str = "--set partitions.root=300MiB --set partitions.data=64MiB";

fn names(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).expect("a folder");
    entries.map(|e| e.expect("an entry").file_name().to_string_lossy().into_owned()).collect()
}

fn digest(path: &Path) -> String {
    let mut file = std::fs::File::open(path).expect("a file");
    let mut hashing = Hashing::new(std::io::sink());
    std::io::copy(&mut file, &mut hashing).expect("read");
    hex(&hashing.finish().1)
}

#[test]
fn help() {
    let mut session = session();
    for args in ["--help", "build -h", "lock -h", "inspect -h", "container -h", "run -h"] {
        assert_eq!(session.berth(args), Some(0));
    }
    for args in ["check -h", "cache -h", "cache size -h", "cache clean -h"] {
        assert_eq!(session.berth(args), Some(0));
    }
    session.refused("biuld host.toml");
    session.refused("build");
    session.refused("run host.toml --disk floppy");
    session.refused("run host.toml -p http");
    session.refused("build host.toml --allow-expired");
    session.shows("help", &[]);
}

#[test]
fn files_that_are_not_there_and_folders_in_their_place() {
    let mut session = session();
    session.write("box.toml", BOX);
    session.write("zeros.raw", "");
    for args in [
        "lock absent.toml",
        "run absent.toml",
        "run zeros.raw --host-config absent.toml",
        "run zeros.raw --set name=x",
        "check absent.toml",
        "check out",
        "check --definition absent.toml",
        "container absent.toml -o out/x.oci.tar",
        "container box.toml -o gone/x.oci.tar --offline",
        "container box.toml -o out --offline",
        "build host.toml -o host.toml --offline",
        "build host.toml -o host.toml/below --offline",
        "build host.toml -o out --offline --set images=[\"gone.tar\"]",
    ] {
        session.refused(args);
        assert!(session.text.ends_with("[2]\n\n"), "{}", session.text);
    }
    session.shows("files", &[]);
}

#[test]
fn a_build_that_is_killed_leaves_nothing() {
    let mut session = session();
    session.write("box.toml", BOX);
    for args in [
        format!("build host.toml -o out --offline {SMALL}"),
        "container box.toml -o out/box.oci.tar --offline".to_owned(),
    ] {
        for signal in [Signal::INT, Signal::TERM, Signal::KILL] {
            // One that was faster than the signal says nothing about it.
            let killed = (0..50).any(|_| {
                let status = kill_while_it_writes(&session, &args, signal);
                match status.signal() {
                    Some(by) => assert_eq!(by, signal.as_raw(), "{args}"),
                    None => clear(&session.path("out")),
                }
                status.signal().is_some()
            });
            assert!(killed, "{args}: never caught while it writes");
            assert_eq!(names(&session.path("out")), [""; 0], "{args}: {signal:?}");
        }
        // Nothing that it left elsewhere is in the way.
        assert_eq!(session.berth(&args), Some(0), "{}", session.text);
        clear(&session.path("out"));
    }
}

/// Sends `signal` as soon as an output is open.
fn kill_while_it_writes(session: &Transcript, args: &str, signal: Signal) -> ExitStatus {
    // It gets a processor only when this test does not need one, and so cannot run away.
    // Whoever runs these tests in the background may have SIGINT ignored, which is passed on.
    let mut command = Command::new("env");
    command.args(["--default-signal=INT,TERM", "nice", "-n", "19"]);
    command.arg(berth()).args(args.split(' ')).current_dir(session.folder());
    let mut child = command.stderr(std::process::Stdio::null()).spawn().expect("it starts");
    let pid = rustix::process::Pid::from_child(&child);
    let open = format!("/proc/{}/fd", child.id());
    let begun = || {
        let files = std::fs::read_dir(&open).into_iter();
        let mut files = files.flatten().flatten().filter_map(|f| f.path().read_link().ok());
        files.any(|file| file.starts_with(session.path("out")))
    };
    while !begun() && child.try_wait().expect("its state").is_none() {
        std::thread::yield_now();
    }
    // It may have ended by itself; then there is nobody to kill.
    let _ = rustix::process::kill_process(pid, signal);
    child.wait().expect("it ends")
}

/// Removes whole outputs. There are no others.
fn clear(folder: &Path) {
    for name in names(folder) {
        assert!(!name.starts_with('.'), "{name}");
        std::fs::remove_file(folder.join(name)).expect("removed");
    }
}

#[test]
fn the_cache() {
    let mut session = session();
    let cache = Cache::open(Some(&session.path("cache"))).expect("a cache");
    for (kind, size, days) in [("blobs", 5 << 20, 40), ("index", 100, 40), ("tar", 3 << 20, 0)] {
        let path = cache.derived(kind, &key(&[kind.as_bytes()]));
        std::fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
        let file = std::fs::File::create(path).expect("a file");
        file.set_len(size).expect("its size");
        let then = SystemTime::now() - Duration::from_secs(days * 24 * 3600);
        let times = FileTimes::new().set_accessed(then).set_modified(then);
        file.set_times(times).expect("its times");
    }
    session.berth("cache size --cache cache");
    session.berth("cache size --cache cache --json");
    // `cache` is a berth that runs.
    assert_eq!(session.berth("cache clean --cache cache"), Some(3));
    drop(cache);
    session.berth("cache clean --cache cache --older-than 30");
    session.berth("cache size --cache cache");
    session.berth("cache clean --cache cache");
    session.berth("cache size --cache cache");
    session.refused("cache clean --cache cache --older-than never");
    session.shows("cache-clean", &[]);
}

#[test]
fn packages_that_cannot_be_had() {
    let mut session = session();
    for packages in ["ngnix", "nginx>=1", "postfix\",\"exim4-daemon-light"] {
        let set = format!("packages=[\"{packages}\"]");
        session.refused(&format!("build host.toml -o out --offline --set {set}"));
    }
    session.shows("packages", &[]);
}

#[test]
fn a_pinned_version_that_is_not_there() {
    let mut session = session();
    session.refused("build host.toml -o out --offline --set packages=[\"nano=1.0\"]");
    // What Debian has instead changes with its updates.
    let seen = session.text.clone();
    let (_, has) = seen.split_once("trixie has ").expect("the versions that there are");
    session.shows("pin", &[has.lines().next().expect("a line")]);
}

#[test]
fn partitions_that_are_too_small() {
    for (name, set, hint) in [
        ("root", "partitions.root=64MiB", "raise `[partitions] root` to at least \""),
        ("boot", "partitions.boot=8MiB", "raise `[partitions] boot` to at least \""),
    ] {
        let mut session = session();
        let args = format!("build host.toml -o out --offline --set {set}");
        session.refused(&args);
        let seen = session.text.clone();
        assert!(seen.contains("MiB too large") && seen.ends_with("[2]\n\n"), "{seen}");
        // With the size of the hint it fits.
        let (_, size) = seen.split_once(hint).expect("a hint");
        let size = size.split('"').next().expect("a size").replace(' ', "");
        let set = format!("partitions.{name}={size}");
        let code = session.berth(&format!("build host.toml -o out --offline --set {set}"));
        assert_eq!(code, Some(0), "{}", session.text);
    }
}

#[test]
fn no_network() {
    let mut session = session();
    session.refused("build host.toml -o out --cache empty --offline");
    session.refused("build host.toml -o out --cache empty --mirror http://127.0.0.1:9");
    session.refused("build host.toml -o out --mirror mirror.example");
    session.write("box.toml", BOX);
    session.refused("container box.toml -o out/x.oci.tar --cache empty --offline");
    session.shows("network", &[]);
}

#[test]
fn locks() {
    let mut session = session();
    session.refused("build host.toml -o out --locked --offline");
    assert_eq!(session.berth("lock host.toml --offline"), Some(0));
    let lock = std::fs::read_to_string(session.path("host.lock")).expect("a lock");
    session.refused("build host.toml -o out --locked --offline --set packages=[\"nano\"]");
    // Content of another version than the lock says.
    let at = lock.find("\nname = \"runc\"\nversion = \"").expect("runc is locked") + 26;
    session.write("host.lock", &format!("{}9{}", &lock[..at], &lock[at..]));
    session.refused("build host.toml -o out --locked --offline");
    session.write("host.lock", "packages\n");
    session.refused("build host.toml -o out --locked --offline");
    session.write("host.lock", &lock.replace("format = 1", "format = 9"));
    session.refused("build host.toml -o out --locked --offline");

    session.write("host.lock", &lock);
    assert_eq!(
        session.berth(&format!("build host.toml -o locked --locked --offline {SMALL}")),
        Some(0)
    );
    assert_eq!(session.berth(&format!("build host.toml -o free --offline {SMALL}")), Some(0));
    let [locked, free] =
        ["locked", "free"].map(|folder| digest(&session.path(folder).join("host-1.raw")));
    assert_eq!(locked, free);

    let count = format!("{} packages", lock.matches("[[package]]").count());
    let version = lock[at..].split('"').next().expect("a version").to_owned();
    session.shows("locks", &[&count, &version]);
}

#[test]
fn a_damaged_cache() {
    let mut session = session();
    assert_eq!(session.berth(&format!("build host.toml -o good --offline {SMALL}")), Some(0));
    assert_eq!(session.berth("lock host.toml --offline"), Some(0));
    let lock = std::fs::read_to_string(session.path("host.lock")).expect("a lock");
    let lock: String = lock.split("name = \"runc\"").nth(1).expect("runc is locked").to_owned();
    let version = lock.split('"').nth(1).expect("a version");
    let sha256 =
        lock.split("sha256 = \"").nth(1).and_then(|l| parse_hex(&l[..64])).expect("a digest");

    // A cache of its own on the same filesystem, without what was built before.
    let shared = cache();
    let own = tempfile::tempdir_in(shared.root()).expect("a folder");
    for kind in ["release", "index", "resolution", "modules", "unpacked", "tar", "blobs"] {
        link_all(&shared.root().join(kind), &own.path().join(kind));
    }
    let cache = Cache::open(Some(own.path())).expect("a cache");
    let unpacked = cache.derived("tar", &key(&[b"unpacked 1", &sha256]));
    damage(&unpacked, own.path());
    let args = format!("--offline --cache {}", own.path().display());

    // Unpacked again, as long as the package itself is whole.
    if cache.blob(&sha256).exists() {
        let code = session.berth(&format!("build host.toml -o again {args} {SMALL}"));
        assert_eq!(code, Some(0), "{}", session.text);
        let [good, again] = ["good", "again"].map(|f| digest(&session.path(f).join("host-1.raw")));
        assert_eq!(again, good);
        damage(&unpacked, own.path());
        damage(&cache.blob(&sha256), own.path());
        std::fs::remove_dir_all(own.path().join("built")).expect("removed");
    }
    session.text.clear();
    session.refused(&format!("build host.toml -o out {args}"));
    session.shows("cache", &[own.path().to_str().expect("a plain path"), version]);
}

/// Turns one bit, in a copy that takes the place of a file that others see too.
fn damage(path: &Path, folder: &Path) {
    let mut bytes = std::fs::read(path).expect("it is in the cache");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    let copy = folder.join("damaged");
    std::fs::write(&copy, bytes).expect("written");
    std::fs::rename(&copy, path).expect("replaced");
}

/// A folder with hard links to all files of another.
fn link_all(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("a folder");
    for entry in std::fs::read_dir(from).into_iter().flatten() {
        let entry = entry.expect("an entry");
        let target = to.join(entry.file_name());
        match entry.file_type().expect("its type").is_dir() {
            true => link_all(&entry.path(), &target),
            // Others may take away what they replace.
            false => drop(std::fs::hard_link(entry.path(), target)),
        }
    }
}

#[test]
fn what_is_no_image() {
    let mut session = session();
    session.write("empty.raw", "");
    let zeros = std::fs::File::create(session.path("zeros.raw")).expect("a file");
    zeros.set_len(100 << 20).expect("its size");
    for command in ["inspect", "run"] {
        for image in ["absent.raw", "empty.raw", "zeros.raw", "out"] {
            session.refused(&format!("{command} {image}"));
        }
    }
    session.shows("image", &[]);
}

#[test]
fn what_an_image_would_run() {
    let mut session = session();
    let file = |path: &str, mode: &str| {
        format!("\n[[file]]\npath = \"{path}\"\nmode = \"{mode}\"\ncontent = \"x\"\n")
    };
    let shell = file("/opt/tool/dash", "0755");
    for (name, text) in [
        ("plain", String::new()),
        ("shell", shell.clone()),
        ("debug", format!("{shell}[debug]\nshell = true\n")),
        ("privileged", file("/usr/bin/{su,sudo}", "4755")),
    ] {
        let definition =
            format!("{}{text}", DEFINITION.replace("\"host\"", &format!("\"{name}\"")));
        session.write("host.toml", &definition);
        let before = session.text.len();
        assert_eq!(session.berth(&format!("build host.toml -o images --offline {SMALL}")), Some(0));
        session.text.truncate(before);
        let args = format!("inspect --audit images/{name}-1.raw");
        let expected = if matches!(name, "plain" | "debug") { 0 } else { 1 };
        assert_eq!(session.berth(&args), Some(expected), "{}", session.text);
    }
    session.berth("inspect --audit --json images/privileged-1.raw");
    session.write("zeros.raw", "");
    session.refused("inspect --audit zeros.raw");
    session.shows("audit", &[]);
}

#[test]
fn a_port_in_use() {
    // QEMU is in the cache afterwards, for a run without the network.
    toolset();
    let mut session = session();
    let image = build("configs/containerd.toml", &["name=e2e-command-line"]);
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("its number").port();
    session.refused(&format!("run {} --ephemeral -p {port}:80", image.display()));
    let seen = session.text.clone();
    let hint = seen.split("choose another: -p ").nth(1).and_then(|h| h.split(':').next());
    let other = hint.expect("a hint with another port").to_owned();
    assert_ne!(other, port.to_string());
    let image = image.to_str().expect("a plain path");
    session.shows("port", &[image, &port.to_string(), &other]);
}

#[test]
fn a_file_that_cannot_be_written_whole() {
    let mut session = session();
    let args = "build host.toml -o out --offline --set version=2";
    let mut command = Command::new("sh");
    command.args(["-c", "ulimit -f 20000; exec \"$0\" \"$@\""]).arg(berth());
    command.args(args.split(' '));
    assert_eq!(session.run(args, command), Some(1), "{}", session.text);
    assert_eq!(names(&session.path("out")), [""; 0]);
    session.shows("file-size", &[]);
}

/// On a filesystem of some MiB: it takes a namespace of users in which this one is root.
#[test]
fn a_full_disk() {
    let mut session = session();
    session.write("box.toml", BOX);
    for args in [
        "build host.toml -o out --offline --set version=3",
        "container box.toml -o out/box.oci.tar --offline",
    ] {
        let mut command = Command::new("unshare");
        let size = if args.starts_with("build") { "40m" } else { "1m" };
        let script = format!(
            "mount -t tmpfs -o size={size} none out || exit 77; \"$0\" \"$@\"; code=$?; \
             find out -type f; exit $code"
        );
        command.args(["--map-root-user", "--mount", "sh", "-c", &script]).arg(berth());
        command.args(args.split(' '));
        let code = session.run(args, command);
        assert_ne!(code, Some(77), "user namespaces are needed: {}", session.text);
        assert_eq!(code, Some(1), "{}", session.text);
    }
    session.shows("disk-full", &[]);
}
