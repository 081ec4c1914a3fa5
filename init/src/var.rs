//! `/var`, the only place that keeps anything: made at the first boot, checked at every other,
//! grown when the disk has grown.
//!
//! Nothing here ever destroys a filesystem that was in use. It is made when the partition is
//! blank and was never made before, or when making it was cut short; the data mark in
//! `berth-state` tells these apart from a filesystem that lost its start.
//!
//! When `/var` cannot be used, a slot on trial fails: its kernel may be the reason, and the other
//! slot gets its chance. A healthy slot goes on without: restarting for ever repairs nothing, so
//! the host comes up with its network and an empty, read-only `/var`, starts no workload (one
//! that finds its volumes empty would begin anew), and says so until someone acts.

use crate::boot_state::BootState;
use crate::data_disk;
use crate::disk::{self, Disk, KernelPartition};
use crate::error::{Error, On, chain};
use crate::ext4::Content;
use crate::tool::{self, Finished};
use crate::watchdog;
use crate::{log, mounts};
use contract::Slot;
use contract::data_mark::DataMark;
use contract::data_place::DataPlace;
use contract::host_config::{Data, Unrepairable};
use contract::text::Text;
use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;
use sys::mount::{Limits, mount};

const MAKE: &str = "/usr/sbin/mke2fs";
const CHECK: &str = "/usr/sbin/e2fsck";

/// Making writes a journal and some metadata; discarding a large disk takes longest.
const MAKE_BOUND: Duration = Duration::from_secs(1800);
/// Replaying the journal takes seconds; a full check of a large, damaged disk takes long, and one
/// that is broken off starts anew next time.
const CHECK_BOUND: Duration = Duration::from_secs(4 * 3600);

const FOLDER: &str = "/var";
/// What tells a `/var` of ours, once it was made, from one whose content is lost.
const OURS: &str = "/var/lib/berth";

/// How much of it containers cannot fill, so that there is room for what keeps the host going: the
/// runtime's databases, logs, configuration, updates. It is for whoever has CAP_SYS_RESOURCE, which
/// the daemons have and containers have not unless they are given it.
const RESERVED_PERCENT: &str = "1";
/// `resuid`: by default it is for user 0 too, whom many containers run as; nobody is this one.
///
/// `nodelalloc`: what the journal says of a file is true of its content, too. By default blocks are chosen
/// up to 30 s after a file was written to, and files that are to be in the journal whole are not:
/// docs/decisions/008-files-of-images.md.
const MOUNT_OPTIONS: &str = "errors=remount-ro,resuid=4294967294,nodelalloc";

/// What became of `/var`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Var {
    /// It is mounted and keeps what is written.
    Ready {
        /// It was made in this boot.
        first_boot: bool,
    },
    /// It is empty and read-only, for this reason. No workload may start.
    Unusable(String),
}

/// What is to be done with the partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Plan {
    Make,
    Check,
    Refuse(&'static str),
}

fn plan(mark: DataMark, content: Content) -> Plan {
    match (mark, content) {
        // Whatever is there was never mounted.
        (DataMark::Making, _) => Plan::Make,
        (DataMark::Unknown, Content::Blank) => Plan::Make,
        // It was ours: e2fsck knows where the other superblocks are.
        (DataMark::Made, _) | (_, Content::Ext4 { .. }) => Plan::Check,
        (DataMark::Unknown, Content::Unknown) => {
            Plan::Refuse("the data partition holds something that is not ext4")
        }
    }
}

/// What e2fsck(8) says by its exit status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Clean,
    Repaired,
    Damaged,
    /// It did not get to look, or gave up.
    Failed,
}

fn verdict(code: Option<i32>) -> Verdict {
    match code {
        Some(0) => Verdict::Clean,
        // 2 asks for a reboot when the filesystem was mounted. It is not, so 1 and 2 are the same.
        Some(1..=3) => Verdict::Repaired,
        Some(code @ 4..=7) if code & 4 != 0 => Verdict::Damaged,
        _ => Verdict::Failed,
    }
}

/// Where `data` lies.
struct Home {
    disk: Disk,
    /// On the disk that the system lies on.
    is_own: bool,
}

impl Home {
    fn mark(&self, state: &BootState) -> Result<DataMark, Error> {
        match self.is_own {
            true => state.data_mark(),
            false if data_disk::is_being_made(&self.disk)? => Ok(DataMark::Making),
            false => Ok(DataMark::Made),
        }
    }

    fn set_mark(&self, state: &BootState, mark: DataMark) -> Result<(), Error> {
        match self.is_own {
            true => state.set_data_mark(mark),
            false => data_disk::set_being_made(&self.disk, mark == DataMark::Making),
        }
    }
}

/// Makes, checks and grows what has to be, and mounts `/var`, from where `told` says; `None`: from
/// where it was before. An error only when `slot` is on trial.
pub fn mount_var(
    disk: &Disk,
    told: Option<Data>,
    state: &BootState,
    slot: Option<Slot>,
) -> Result<Var, Error> {
    let problem = match prepare(disk, told, state, slot) {
        Ok(first_boot) => return Ok(Var::Ready { first_boot }),
        Err(e) => e,
    };
    if let Some(slot) = slot
        && state.is_on_trial(slot)?
    {
        return Err(problem);
    }
    let reason = chain(&problem);
    log::warning(&reason);
    log::hint(match problem {
        Error::Lost(_) => {
            "it is left as it is, and no workload starts: repair the disk or replace it, or say \
             `[data] unrepairable = \"replace\"` to begin anew; then restart the machine"
        }
        _ => "no workload starts: correct `[data]` or the disk, then restart the machine",
    });
    note(state, slot, &reason);
    let limits = Limits { read_only: true, ..Limits::KERNEL };
    mount("tmpfs", FOLDER, "tmpfs", limits, "mode=755,size=4k").on("mount", FOLDER)?;
    Ok(Var::Unusable(reason))
}

/// A line in the boot journal, where it can be written.
fn note(state: &BootState, slot: Option<Slot>, text: &str) {
    if let Err(e) = state.journal(slot, text) {
        log::warning(&chain(&e));
    }
}

fn home(disk: &Disk, wanted: &str, state: &BootState) -> Result<Home, Error> {
    if wanted.is_empty() {
        return Ok(Home { disk: disk.clone(), is_own: true });
    }
    let place = state.data_place()?;
    let preparing = place.preparing && place.disk.as_str() == wanted;
    let begin = || {
        log::line(&format!("preparing disk {wanted} for /var"));
        state.set_data_place(&DataPlace { disk: Text::new(wanted), preparing: true })
    };
    let found = data_disk::open(wanted, disk, preparing, begin)?;
    log::line(&format!("/var is on disk {}", found.name));
    Ok(Home { is_own: found.name == disk.name, disk: found })
}

fn prepare(
    disk: &Disk,
    told: Option<Data>,
    state: &BootState,
    slot: Option<Slot>,
) -> Result<bool, Error> {
    let (wanted, unrepairable) = match told {
        Some(data) => (data.disk.unwrap_or_default(), data.unrepairable),
        None => (state.data_place()?.disk.as_str().to_owned(), Unrepairable::Keep),
    };
    let home = home(disk, &wanted, state)?;
    let partition = grown(&home.disk)?;
    let device = format!("/dev/{}", partition.name);
    let mark = home.mark(state)?;
    let kept = match plan(mark, Content::of(&device)?) {
        Plan::Refuse(reason) => return Err(Error::Var(reason.to_owned())),
        Plan::Make => false,
        Plan::Check => match take(&device, mark, |what| note(state, slot, what)) {
            Ok(()) => true,
            Err(Error::Lost(why)) if unrepairable == Unrepairable::Replace => {
                let what = format!("/var is lost and made anew, as told: {why}");
                log::warning(&what);
                note(state, slot, &what);
                false
            }
            Err(e) => return Err(e),
        },
    };
    if !kept {
        home.set_mark(state, DataMark::Making)?;
        make(&device)?;
        mount_data(&device)?;
    }
    if !kept || mark != DataMark::Made {
        lay_out()?;
        // The mark says that all of this is on the disk. Until then it may be made anew.
        sys::file::flush_filesystem(Path::new(FOLDER)).on("flush", FOLDER)?;
        home.set_mark(state, DataMark::Made)?;
    }
    // It serves only a boot that cannot read its configuration.
    let place = DataPlace { disk: Text::new(&wanted), preparing: false };
    if let Err(e) = state.set_data_place(&place).and_then(|()| fill(&device, &partition)) {
        // The space that it has serves as well.
        log::warning(&chain(&e));
    }
    Ok(!kept)
}

/// The partition, grown to the end of the disk.
fn grown(disk: &Disk) -> Result<KernelPartition, Error> {
    disk::grow(disk).or_else(|e| {
        // It serves as it is, if it is there at all.
        log::warning(&chain(&e));
        let device = disk.device(contract::layout::Partition::Data)?;
        let mut all = disk::kernel_partitions(&disk.name).into_iter();
        all.find(|partition| format!("/dev/{}", partition.name) == device).ok_or(e)
    })
}

fn mount_data(device: &str) -> Result<(), Error> {
    // See `bring`.
    let limits = Limits { no_atime: true, ..Limits::KERNEL };
    mount(device, FOLDER, "ext4", limits, MOUNT_OPTIONS).on("mount", FOLDER)
}

/// Checks the filesystem that is there, and mounts it. What was repaired is told to `note`.
fn take(device: &str, mark: DataMark, note: impl Fn(&str)) -> Result<(), Error> {
    if let Some(what) = check(device)? {
        note(&what);
    }
    mount_data(device)?;
    if mark == DataMark::Made && !Path::new(OURS).is_dir() {
        // Workloads that find their volumes gone would begin anew.
        mounts::unmount(FOLDER)?;
        return Err(Error::Lost("what it held is lost, or in its lost+found".to_owned()));
    }
    Ok(())
}

fn make(device: &str) -> Result<(), Error> {
    log::line("making the filesystem for /var");
    // 4096-byte blocks whatever the size now: it may grow from 64 MiB to terabytes. No orphan
    // file: e2fsck 1.47 leaves one behind that the kernel refuses when it repairs from a backup
    // superblock, and the filesystem is lost for nothing.
    let arguments = [
        &["-q", "-F", "-t", "ext4", "-b", "4096", "-I", "256", "-O", "^orphan_file"],
        &["-m", RESERVED_PERCENT, "-L", "data", device][..],
    ]
    .concat();
    let finished = tool::run(MAKE, &arguments, MAKE_BOUND)?;
    match finished.code {
        Some(0) => Ok(()),
        _ => Err(ended_badly(MAKE, &finished)),
    }
}

/// Checks the filesystem. Returns what was repaired.
fn check(device: &str) -> Result<Option<String>, Error> {
    let first = tool::run(CHECK, &["-p", device], CHECK_BOUND)?;
    match verdict(first.code) {
        Verdict::Clean => return Ok(None),
        Verdict::Repaired => {
            log::line(&format!("/var was repaired: {}", first.last_line()));
            return Ok(Some("/var was repaired by e2fsck -p".to_owned()));
        }
        Verdict::Damaged | Verdict::Failed => {
            log::warning(&format!("/var is damaged: {}", first.first_line()));
        }
    }
    // Nobody can sit down at this host and answer e2fsck's questions, and a yes to all of them is
    // what they would say. What it cannot place ends in lost+found.
    let second = tool::run(CHECK, &["-f", "-y", device], CHECK_BOUND)?;
    match verdict(second.code) {
        Verdict::Clean | Verdict::Repaired => {
            log::warning("/var was damaged and repaired; files may be in /var/lost+found");
            Ok(Some("/var was damaged and repaired by e2fsck -y; see lost+found".to_owned()))
        }
        Verdict::Damaged | Verdict::Failed => Err(Error::Lost(format!(
            "it cannot be repaired: {}",
            chain(&ended_badly(CHECK, &second))
        ))),
    }
}

fn ended_badly(path: &str, finished: &Finished) -> Error {
    let how = match finished.code {
        Some(code) => format!("status {code}"),
        None => "killed by a signal".to_owned(),
    };
    Error::Tool { tool: path.to_owned(), problem: format!("{how}: {}", finished.first_line()) }
}

/// Grows the mounted filesystem to its partition.
fn fill(device: &str, partition: &KernelPartition) -> Result<(), Error> {
    let Some(blocks) = growth(Content::of(device)?, partition.len) else { return Ok(()) };
    let folder = File::open(FOLDER).on("open", FOLDER)?;
    // Minutes, from a small partition to a large one on a slow disk.
    watchdog::during(|| sys::ext4::grow(&folder, blocks)).on("grow", FOLDER)?;
    log::line(&format!("/var now has {} MiB", partition.len >> 20));
    Ok(())
}

/// Number of blocks that the filesystem should have; `None` when it has them. Less than a
/// mebibyte is not worth a write.
fn growth(content: Content, partition_len: u64) -> Option<u64> {
    match content {
        Content::Ext4 { len, block_size } if len.saturating_add(1 << 20) <= partition_len => {
            Some(partition_len / block_size)
        }
        _ => None,
    }
}

/// Lets what lies in `folders` be executed and opened as devices. Nothing else on `/var` can be: it
/// is not for programs, and what gets there by a mistake of somebody does not run. Containers whose
/// first layer is their only one, and volumes, are these folders themselves, so their set-user-ID
/// programs and device nodes need them open too.
pub fn bring(folders: &[String]) -> Result<(), Error> {
    for folder in folders.iter().filter(|folder| Path::new(folder).starts_with(FOLDER)) {
        fs::create_dir_all(folder).on("make", folder)?;
        let limits = Limits { no_atime: true, ..Limits::default() };
        sys::mount::bind_with(folder, limits).on("mount", folder)?;
    }
    Ok(())
}

/// The folders that programs expect.
fn lay_out() -> Result<(), Error> {
    for (folder, mode) in [
        ("/var/lib", 0o755),
        (OURS, 0o700),
        ("/var/cache", 0o755),
        ("/var/log", 0o755),
        ("/var/tmp", 0o1777),
    ] {
        if !Path::new(folder).is_dir() {
            fs::create_dir(folder).on("make", folder)?;
            fs::set_permissions(folder, fs::Permissions::from_mode(mode)).on("make", folder)?;
        }
    }
    for (link, target) in [("/var/run", "/run"), ("/var/lock", "/run/lock")] {
        if fs::symlink_metadata(link).is_err() {
            std::os::unix::fs::symlink(target, link).on("link", link)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const EXT4: Content = Content::Ext4 { len: 100 << 20, block_size: 4096 };

    #[test]
    fn plan_table() {
        use Content::*;
        use DataMark as Mark;
        let refused = Plan::Refuse("the data partition holds something that is not ext4");
        let cases = [
            (Mark::Unknown, Blank, Plan::Make),
            (Mark::Unknown, EXT4, Plan::Check),
            (Mark::Unknown, Content::Unknown, refused),
            (Mark::Making, Blank, Plan::Make),
            (Mark::Making, EXT4, Plan::Make),
            (Mark::Making, Content::Unknown, Plan::Make),
            (Mark::Made, Blank, Plan::Check),
            (Mark::Made, EXT4, Plan::Check),
            (Mark::Made, Content::Unknown, Plan::Check),
        ];
        for (mark, content, expected) in cases {
            assert_eq!(plan(mark, content), expected, "{mark:?} {content:?}");
        }
    }

    #[test]
    fn verdict_table() {
        use Verdict::*;
        let cases = [
            (Some(0), Clean),
            (Some(1), Repaired),
            (Some(2), Repaired),
            (Some(3), Repaired),
            (Some(4), Damaged),
            (Some(5), Damaged),
            (Some(8), Failed),
            (Some(12), Failed),
            (Some(16), Failed),
            (Some(32), Failed),
            (None, Failed),
        ];
        for (code, expected) in cases {
            assert_eq!(verdict(code), expected, "{code:?}");
        }
    }

    #[test]
    fn growth_table() {
        let mib = 1 << 20;
        for (partition, expected) in [
            (100 * mib, None),
            (101 * mib - 4096, None),
            (101 * mib, Some(101 * 256)),
            (4096 * mib, Some(4096 * 256)),
            (50 * mib, None),
        ] {
            assert_eq!(growth(EXT4, partition), expected, "{partition}");
        }
        assert_eq!(growth(Content::Unknown, 1 << 40), None);
        let absurd = Content::Ext4 { len: u64::MAX, block_size: 4096 };
        assert_eq!(growth(absurd, 1 << 40), None);
    }
}
