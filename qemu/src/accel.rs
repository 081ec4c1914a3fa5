//! KVM where it really works, emulation elsewhere.
//!
//! `/dev/kvm` may exist and open, and guests still fail in it: nested virtualisation that does not
//! pass everything through is one way to get there. So a tiny guest is started, once a boot of
//! this machine.

use crate::config::Toolset;
use crate::process::wait_within;
use crate::{Error, Result, command, probe_rom};
use std::fmt;
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};
use std::time::Duration;

/// A probe that works takes a tenth of a second.
const PROBE: Duration = Duration::from_secs(3);

/// How guests are run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Accelerator {
    /// By the processor.
    Kvm,
    /// By emulation: any machine can, some ten times slower.
    Tcg,
}

impl Accelerator {
    pub(crate) fn arguments(self) -> &'static str {
        match self {
            Accelerator::Kvm => "-accel kvm -cpu host",
            // Guests have died in an emulated `cmpxchg16b`. `rep movsb` is emulated byte by byte, and each
            // process switch has the page tables walked again, the fewer levels the better.
            Accelerator::Tcg => "-accel tcg,thread=multi -cpu max,-cx16,-erms,-fsrm,-la57",
        }
    }
}

/// How guests are run here, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Accel {
    /// The choice.
    pub accelerator: Accelerator,
    /// Why not KVM; empty when it is.
    pub reason: String,
}

impl fmt::Display for Accel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.accelerator {
            Accelerator::Kvm => write!(f, "KVM"),
            Accelerator::Tcg => write!(f, "emulation (TCG), since {}", self.reason),
        }
    }
}

/// Finds out, or remembers, how to run guests here.
pub fn detect(tools: &Toolset) -> Result<Accel> {
    let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let key = key(boot.trim(), tools);
    if let Some(file) = &tools.accel_cache {
        let kept = std::fs::read_to_string(file).unwrap_or_default();
        if let Some(accel) = parse(&kept, &key) {
            return Ok(accel);
        }
    }
    let opened = std::fs::OpenOptions::new().read(true).write(true).open("/dev/kvm");
    let accel = match opened {
        // Not worth keeping, and the person may be about to change it.
        Err(error) => return Ok(tcg(format!("/dev/kvm cannot be used: {error}"))),
        Ok(_) => probe(tools)?,
    };
    if let Some(file) = &tools.accel_cache {
        // Without the file the next start probes again; that is all.
        let _ = keep(file, &format(&accel, &key));
    }
    Ok(accel)
}

fn tcg(reason: String) -> Accel {
    Accel { accelerator: Accelerator::Tcg, reason }
}

/// Starts the tiny guest in KVM.
fn probe(tools: &Toolset) -> Result<Accel> {
    let dir = tempfile::tempdir().map_err(Error::io("create", std::env::temp_dir()))?;
    let rom = dir.path().join("probe.rom");
    std::fs::write(&rom, probe_rom::image()).map_err(Error::io("write", &rom))?;
    let mut said = tempfile::tempfile().map_err(Error::io("create", std::env::temp_dir()))?;
    let errors = said.try_clone().map_err(Error::io("open", std::env::temp_dir()))?;

    let base = command::base(tools);
    let program = base[0].to_string_lossy().into_owned();
    let mut child = Command::new(&base[0])
        .args(&base[1..])
        .args(Accelerator::Kvm.arguments().split(' '))
        .args(["-machine", "q35,vmport=off", "-m", "16", "-no-reboot", "-bios"])
        .arg(&rom)
        .arg("-device")
        .arg(format!("isa-debug-exit,iobase={:#x},iosize=1", probe_rom::PORT))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(errors)
        .spawn()
        .map_err(|source| Error::Spawn { program, source })?;
    let ended = wait_within(&mut child, PROBE);
    crate::process::kill(&mut child);
    let ended = ended.map_err(Error::io("wait for", "qemu"))?;

    let mut text = Vec::new();
    let read = said.seek(SeekFrom::Start(0)).and_then(|_| said.take(4096).read_to_end(&mut text));
    read.map_err(Error::io("read", std::env::temp_dir()))?;
    Ok(judge(ended, &String::from_utf8_lossy(&text)))
}

/// What the probe's end means.
fn judge(ended: Option<ExitStatus>, said: &str) -> Accel {
    let why = match ended {
        Some(status) if status.code() == Some(probe_rom::EXIT_STATUS) => {
            return Accel { accelerator: Accelerator::Kvm, reason: String::new() };
        }
        Some(_) => "a trial guest died in KVM",
        None => "a trial guest hung in KVM",
    };
    // Warnings come first; the last line is nearest to the cause, but for an assertion.
    let useful = |line: &&str| !line.contains("warning:") && !line.contains("Assertion");
    let last = said.lines().map(str::trim).filter(|l| !l.is_empty()).rfind(useful);
    match last.map(|line| line.rsplit_once("qemu-system-x86_64: ").map_or(line, |(_, l)| l)) {
        Some(line) => tcg(format!("{why} ({line})")),
        None => tcg(why.to_owned()),
    }
}

/// What the answer depends on: this boot, this user and this QEMU.
fn key(boot: &str, tools: &Toolset) -> String {
    let user = rustix::process::geteuid().as_raw();
    format!("{boot} {user} {:?}", tools.qemu)
}

fn format(accel: &Accel, key: &str) -> String {
    format!("{key}\n{:?}\n{}\n", accel.accelerator, accel.reason.replace('\n', " "))
}

fn parse(text: &str, key: &str) -> Option<Accel> {
    let mut lines = text.lines();
    if lines.next()? != key {
        return None;
    }
    match (lines.next()?, lines.next()?) {
        ("Kvm", _) => Some(Accel { accelerator: Accelerator::Kvm, reason: String::new() }),
        ("Tcg", reason) => Some(tcg(reason.to_owned())),
        _ => None,
    }
}

/// Several may do this at once; each leaves a whole file.
fn keep(file: &Path, text: &str) -> std::io::Result<()> {
    let parent = file.parent().unwrap_or(Path::new("."));
    std::fs::create_dir_all(parent)?;
    let mut whole = tempfile::NamedTempFile::new_in(parent)?;
    whole.write_all(text.as_bytes())?;
    whole.persist(file)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::process::ExitStatusExt;

    #[test]
    fn only_the_answer_of_the_guest_counts() {
        let exit = |code: i32| Some(ExitStatus::from_raw(code << 8));
        let abort = Some(ExitStatus::from_raw(6));
        let failed = "qemu-system-x86_64: warning: no pni\n\
            qemu-system-x86_64: error: failed to set MSR 0x10a\n\
            qemu-system-x86_64: kvm.c:3877: Assertion `ret' failed.\n";
        let cases = [
            (exit(85), "qemu-system-x86_64: warning: whatever\n", "KVM"),
            (exit(0), "", "emulation (TCG), since a trial guest died in KVM"),
            (
                abort,
                failed,
                "emulation (TCG), since a trial guest died in KVM (error: failed to set MSR 0x10a)",
            ),
            (None, "", "emulation (TCG), since a trial guest hung in KVM"),
        ];
        for (ended, said, expected) in cases {
            assert_eq!(judge(ended, said).to_string(), expected);
        }
    }

    #[test]
    fn what_is_kept_serves_only_its_own_boot_and_qemu() {
        for accel in [tcg("it hung".into()), judge(Some(ExitStatus::from_raw(85 << 8)), "")] {
            let text = format(&accel, "boot-1 0 qemu");
            assert_eq!(parse(&text, "boot-1 0 qemu"), Some(accel));
            assert_eq!(parse(&text, "boot-2 0 qemu"), None);
        }
        for text in ["", "k", "k\nKvm", "k\nXen\n\n"] {
            assert_eq!(parse(text, "k"), None, "{text}");
        }
    }

    #[test]
    fn the_kept_file_is_whole() {
        let dir = tempfile::tempdir().expect("a folder");
        let file = dir.path().join("new/accel");
        keep(&file, "text").expect("kept");
        assert_eq!(std::fs::read_to_string(file).expect("read"), "text");
    }
}
