//! What the scenarios share: images built once, machines started from copies of them.

pub mod cri;
pub mod published;
pub mod registry;
pub mod rows;
#[path = "../updater/tests/client/server.rs"]
pub mod server;
pub mod transcript;

use contract::Slot;
use contract::console::Ready;
use contract::layout::{BLOCK, Partition, RECORD_OFFSETS};
use contract::record::{Record, SlotEntry, State};
use contract::text::Text;
use contract::trailer::Trailer;
use image_builder::cache::Cache;
use image_builder::debian::Network;
use image_builder::inspect;
use image_builder::tools::Tools;
use qemu::{Config, Machine, PortForward, Toolset};
use rustix::fs::{FlockOperation, SeekFrom, flock, seek};
use std::ffi::OsStr;
use std::fs::File;
use std::io::{Read, Seek};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// Long enough for a boot with Docker on a slow machine without KVM.
pub const BOOT: Duration = Duration::from_secs(900);
/// Long enough for anything that a running host does at once.
pub const SOON: Duration = Duration::from_secs(300);

/// The project's folder.
pub fn project() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests/ lies in the project")
}

/// Where images for tests are kept from one test program to the next.
pub fn images() -> PathBuf {
    let folder = berth().parent().expect("a folder").join("e2e");
    std::fs::create_dir_all(&folder).expect("a folder for images");
    folder
}

/// The `berth` program that was built with these tests.
pub fn berth() -> PathBuf {
    let test = std::env::current_exe().expect("this program");
    let folder = test.ancestors().find(|folder| folder.join("berth").is_file());
    folder.expect("berth is built by `make build`").join("berth")
}

/// Runs `berth` in the project's folder.
pub fn run_berth(args: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Output {
    Command::new(berth()).args(args).current_dir(project()).output().expect("berth starts")
}

/// Runs `berth`, which has to succeed, and returns what it printed.
pub fn berth_ok<S: AsRef<OsStr>>(args: impl IntoIterator<Item = S>) -> String {
    let output = run_berth(args);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "berth: {}\n{errors}", output.status);
    String::from_utf8(output.stdout).expect("text")
}

/// The demonstration image with a debug shell: Docker, nginx and PostgreSQL.
pub fn demo_image() -> &'static Path {
    static IMAGE: OnceLock<PathBuf> = OnceLock::new();
    IMAGE.get_or_init(|| {
        let preload = "images=[\"containers/nginx.toml\",\"containers/postgres.toml\"]";
        build("configs/docker.toml", &["name=e2e-docker", "debug.shell=true", preload])
    })
}

/// The Docker image with a debug shell and busybox preloaded: less to load at first boot.
pub fn docker_image() -> &'static Path {
    static IMAGE: OnceLock<PathBuf> = OnceLock::new();
    IMAGE.get_or_init(|| {
        let preload = "images=[\"containers/busybox.toml\"]";
        build("configs/docker.toml", &["name=e2e-docker-small", "debug.shell=true", preload])
    })
}

/// A containerd image with a debug shell. Modules are loaded when somebody needs them: loading those that
/// containers may need later is a fifth of an emulated boot, and for other scenarios.
pub fn build_containerd(name: &str, more: &[&str]) -> PathBuf {
    let name = format!("name={name}");
    let modules = "host-config=../tests/modules-on-demand.toml";
    let sets = [&[&name, "debug.shell=true", modules], more].concat();
    build("configs/containerd.toml", &sets)
}

/// The containerd image.
pub fn containerd_image() -> &'static Path {
    static IMAGE: OnceLock<PathBuf> = OnceLock::new();
    IMAGE.get_or_init(|| build_containerd("e2e-containerd", &[]))
}

/// The containerd image with what it takes to play a router in a network namespace of its own.
pub fn network_image() -> &'static Path {
    static IMAGE: OnceLock<PathBuf> = OnceLock::new();
    let packages = "packages=[\"chrony\",\"dnsmasq-base\",\"iproute2\"]";
    IMAGE.get_or_init(|| build_containerd("e2e-network", &[packages]))
}

/// The containerd image with the kernel for real servers.
pub fn generic_image() -> &'static Path {
    static IMAGE: OnceLock<PathBuf> = OnceLock::new();
    IMAGE.get_or_init(|| build_containerd("e2e-generic", &["kernel=generic"]))
}

/// The containerd image for disks with sectors of 4096 bytes, with judges of its own.
pub fn large_sector_image() -> &'static Path {
    static IMAGE: OnceLock<PathBuf> = OnceLock::new();
    let judges = "packages=[\"gdisk\",\"dosfstools\"]";
    IMAGE.get_or_init(|| build_containerd("e2e-4k", &["partitions.sector-size=4096", judges]))
}

/// The containerd image with a PID 1 in its root that hangs as it starts.
pub fn hanging_image() -> &'static Path {
    static IMAGE: OnceLock<PathBuf> = OnceLock::new();
    let script = "echo this init does nothing from here on > /dev/console\n\
                  while :; do busybox sleep 1000; done";
    IMAGE.get_or_init(|| with_init("e2e-hanging", script))
}

/// The containerd image with a script as PID 1 in its root.
fn with_init(name: &str, script: &str) -> PathBuf {
    let init = format!(
        "file=[{{path=\"/usr/lib/berth/init\",mode=\"0755\",content=\"\"\"\
         #!/usr/bin/busybox sh\n{script}\n\"\"\"}}]"
    );
    build_containerd(name, &[&init])
}

/// The containerd image with a PID 1 in its root under which the kernel panics.
pub fn panicking_image() -> &'static Path {
    static IMAGE: OnceLock<PathBuf> = OnceLock::new();
    IMAGE.get_or_init(|| with_init("e2e-panicking", "echo c > /proc/sysrq-trigger"))
}

/// The containerd image without the driver of the virtual machines' network card.
pub fn offline_image() -> &'static Path {
    static IMAGE: OnceLock<PathBuf> = OnceLock::new();
    let drop = "drop=[\"/usr/lib/modules/*/kernel/drivers/net/virtio_net.ko*\"]";
    IMAGE.get_or_init(|| build_containerd("e2e-offline", &[drop]))
}

/// Builds an image once for all test programs; a second build of the same is a look at its stamp.
pub fn build(definition: &str, sets: &[&str]) -> PathBuf {
    let folder = images();
    let lock = File::create(folder.join("lock")).expect("a lock");
    flock(&lock, FlockOperation::LockExclusive).expect("locked");
    let mut args = vec!["build", definition, "-o", folder.to_str().expect("a plain path")];
    for set in sets {
        args.extend(["--set", set]);
    }
    PathBuf::from(berth_ok(args).trim())
}

/// QEMU and its firmware, installed or from Debian packages.
pub fn toolset() -> &'static Toolset {
    static TOOLS: OnceLock<Toolset> = OnceLock::new();
    TOOLS.get_or_init(|| tools(&cache()).qemu().expect("QEMU"))
}

/// A checker such as `e2fsck`, from Debian packages.
pub fn checker(name: &str) -> Command {
    let argv = tools(&cache()).checker(name).expect("a checker");
    let mut command = Command::new(&argv[0]);
    command.args(&argv[1..]);
    command
}

/// The cache that `berth` uses too.
pub fn cache() -> Cache {
    Cache::open(None).expect("a cache")
}

fn tools(cache: &Cache) -> Tools<'_> {
    Tools { cache, mirror: None, network: Network::Online }
}

/// Runs a checker, which has to succeed.
pub fn judge<S: AsRef<OsStr>>(name: &str, args: impl IntoIterator<Item = S>) -> String {
    let output = checker(name).args(args).output().expect("the checker starts");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{name}: {}\n{text}\n{errors}", output.status);
    text
}

/// Where `partition` lies on a disk, as our own report says; the checkers vouch for the table.
pub fn place(disk: &Path, partition: Partition) -> contract::manifest::Partition {
    let report = inspect::inspect(disk).expect("an image");
    let found = report.partitions.into_iter().find(|p| p.label == partition.label());
    found.expect("the partition is there")
}

/// A disk of its own for one scenario: a sparse copy of an image.
#[derive(Debug)]
pub struct Disk {
    folder: tempfile::TempDir,
}

impl Disk {
    /// A copy of `image`.
    pub fn copy_of(image: &Path) -> Disk {
        let folder = tempfile::tempdir().expect("a folder");
        copy_sparse(image, &folder.path().join("disk.raw"));
        Disk { folder }
    }

    /// The disk image.
    pub fn path(&self) -> PathBuf {
        self.folder.path().join("disk.raw")
    }

    /// Makes the disk `bytes` larger.
    pub fn grow(&self, bytes: u64) {
        let file = File::options().write(true).open(self.path()).expect("the disk");
        let len = file.metadata().expect("its size").len();
        file.set_len(len + bytes).expect("a larger disk");
    }

    /// Installs the system in slot A of `image` in slot B, under the name of `version`, as an update
    /// does, and returns the boot record. It lies in the first copy; the second is empty.
    pub fn install_in_b(&self, image: &Path, version: &str, state: State) -> Record {
        let from = File::open(image).expect("the image");
        let to = File::options().write(true).open(self.path()).expect("the disk");
        for part in [Partition::Boot, Partition::Root, Partition::Verity] {
            let (a, b) = (place(image, part(Slot::A)), place(&self.path(), part(Slot::B)));
            copy_data(&from, a.offset, a.size, &to, b.offset);
        }
        let mut record = first_record(&self.path());
        let installed = first_record(image)[Slot::A];
        record[Slot::B] =
            SlotEntry { state, priority: 2, version: Text::new(version), ..installed };
        let boot = place(&self.path(), Partition::Boot(Slot::B));
        let trailer = Trailer::of(&record[Slot::B], record.sequence).encode();
        let written = place(&self.path(), Partition::State).offset;
        to.write_all_at(&trailer, boot.offset + boot.size - BLOCK as u64).expect("a trailer");
        to.write_all_at(&record.encode(), written + RECORD_OFFSETS[0]).expect("a record");
        to.write_all_at(&[0; BLOCK], written + RECORD_OFFSETS[1]).expect("one copy");
        record
    }

    /// Writes a file to the folder `berth` of the ESP.
    pub fn put_on_esp(&self, name: &str, text: &str) {
        let file = self.folder.path().join("esp-file");
        std::fs::write(&file, text).expect("written");
        let esp = place(&self.path(), Partition::Esp).offset;
        let volume = format!("{}@@{esp}", self.path().display());
        let target = format!("::berth/{name}");
        judge("mcopy", ["-o", "-i", &volume, file.to_str().expect("a plain path"), &target]);
    }

    /// A machine's configuration with this disk. One processor: two scenarios run at a time, and under
    /// emulation a second processor costs each of them a fifth more time. Where processors matter the
    /// scenario takes two.
    pub fn config(&self) -> Config {
        Config { debug_console: true, cpus: 1, ..Config::new(self.path()) }
    }

    /// Writes a host configuration beside the disk and returns its path.
    pub fn host_config(&self, text: &str) -> PathBuf {
        let path = self.folder.path().join("host.toml");
        std::fs::write(&path, text).expect("written");
        path
    }
}

/// Copies a file but for its holes.
fn copy_sparse(from: &Path, to: &Path) {
    let (from, to) = (File::open(from).expect("an image"), File::create(to).expect("a copy"));
    let len = from.metadata().expect("its size").len();
    to.set_len(len).expect("a sparse copy");
    copy_data(&from, 0, len, &to, 0);
}

/// Copies `len` bytes from one place to another, but for holes: zeros are there already.
pub fn copy_data(mut from: &File, start: u64, len: u64, mut to: &File, target: u64) {
    let end = start + len;
    let mut at = start;
    while let Ok(data) = seek(from, SeekFrom::Data(at))
        && data < end
    {
        let hole = seek(from, SeekFrom::Hole(data)).expect("the end of the data").min(end);
        from.seek(std::io::SeekFrom::Start(data)).expect("there");
        to.seek(std::io::SeekFrom::Start(target + data - start)).expect("there");
        std::io::copy(&mut from.take(hole - data), &mut to).expect("copied");
        at = hole;
    }
}

/// The boot record of an image that was never started.
fn first_record(image: &Path) -> Record {
    let mut block = [0; BLOCK];
    let at = place(image, Partition::State).offset + RECORD_OFFSETS[0];
    File::open(image).and_then(|file| file.read_exact_at(&mut block, at)).expect("a record");
    Record::decode(&block).expect("a new image has a record")
}

/// Starts a machine.
pub fn start(config: &Config) -> Machine {
    Machine::start(toolset(), config).expect("the machine starts")
}

/// Starts a machine and waits until everything that was asked of it runs.
pub fn boot(config: &Config) -> (Machine, Ready) {
    let mut machine = start(config);
    let ready = machine.wait_ready(BOOT).expect("the host gets ready");
    (machine, ready)
}

/// A port of the guest, on a free port of this machine.
pub fn forward(guest: u16) -> PortForward {
    PortForward { host: 0, guest }
}

/// Runs `command` in the guest's debug shell; it has to succeed. Returns what it printed.
pub fn sh(machine: &mut Machine, command: &str) -> String {
    let output = machine.shell(command, SOON).expect("the shell answers");
    assert_eq!(output.status, 0, "{command}: {}", output.stdout);
    output.stdout
}

const PAUSE_MIN: Duration = Duration::from_millis(500);
const PAUSE_MAX: Duration = Duration::from_secs(5);

/// Runs `command` in the guest until it prints something for which `done` holds. Asking takes from an
/// emulated processor what the guest needs to get there, so that pauses are longer than questions.
pub fn sh_until(machine: &mut Machine, command: &str, done: impl Fn(&str) -> bool) -> String {
    let end = Instant::now() + SOON;
    loop {
        let asked = Instant::now();
        let output = machine.shell(command, SOON).expect("the shell answers");
        if done(&output.stdout) {
            return output.stdout;
        }
        let last = &output.stdout;
        assert!(Instant::now() < end, "{command}: still {last}");
        std::thread::sleep((asked.elapsed() * 4).clamp(PAUSE_MIN, PAUSE_MAX));
    }
}
