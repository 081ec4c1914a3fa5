//! Who this host is: machine ID, host name, and the files in `/etc` that say so.
//!
//! `/etc` is read-only; the image links these files to places below `/run`. Where a link points
//! is where its file is written, so that only the image decides it.

use crate::error::{Error, On};
use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};

const MACHINE_ID: &str = "/var/lib/berth/machine-id";

/// Name of a host that nobody has named.
pub const DEFAULT_HOSTNAME: &str = "berth";

/// Where the file behind `/etc/NAME` is to be written.
pub fn etc_file(name: &str) -> PathBuf {
    let link = fs::read_link(Path::new("/etc").join(name)).ok();
    link.and_then(|target| below_run(&target)).unwrap_or_else(|| Path::new("/run").join(name))
}

/// The absolute form of a link in `/etc`, when it leads below `/run`.
fn below_run(target: &Path) -> Option<PathBuf> {
    let target = Path::new("/").join(target.strip_prefix("..").unwrap_or(target));
    let plain = target.components().all(|part| part != std::path::Component::ParentDir);
    (plain && target.starts_with("/run")).then_some(target)
}

/// Writes the file behind `/etc/NAME`.
pub fn write_etc(name: &str, content: &str) -> Result<(), Error> {
    let path = etc_file(name);
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).on("make", folder.display())?;
    }
    fs::write(&path, content).on("write", path.display())
}

/// Sets the machine ID, made at the first boot and kept while `/var` keeps anything.
pub fn set_machine_id(var_keeps: bool) -> Result<(), Error> {
    let kept = fs::read_to_string(MACHINE_ID).ok().and_then(|text| parse_id(&text));
    let id = match kept {
        Some(id) => id,
        None => {
            let id = new_id()?;
            if var_keeps {
                let line = format!("{id}\n");
                sys::file::replace(Path::new(MACHINE_ID), line.as_bytes(), 0o444)
                    .on("write", MACHINE_ID)?;
            }
            id
        }
    };
    write_etc("machine-id", &format!("{id}\n"))
}

/// machine-id(5): 32 lower-case hexadecimal digits, not all zero.
fn parse_id(text: &str) -> Option<String> {
    let id = text.strip_suffix('\n').unwrap_or(text);
    let digits = id.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    (id.len() == 32 && digits && id.bytes().any(|b| b != b'0')).then(|| id.to_owned())
}

fn new_id() -> Result<String, Error> {
    let mut bytes = [0; 16];
    // Unlike urandom it waits until the kernel has gathered enough.
    let source = "/dev/random";
    File::open(source).and_then(|mut file| file.read_exact(&mut bytes)).on("read", source)?;
    // The form of a random UUID, as machine-id(5) asks for.
    bytes[6] = bytes[6] & 0x0f | 0x40;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    Ok(crate::cmdline::hex(&bytes))
}

/// Names this host, in the kernel and in `/etc`. Safe to call again when DHCP tells a name.
pub fn set_hostname(name: &str) -> Result<(), Error> {
    let path = "/proc/sys/kernel/hostname";
    fs::write(path, name).on("write", path)?;
    write_etc("hostname", &format!("{name}\n"))?;
    write_etc("hosts", &hosts(name))
}

fn hosts(name: &str) -> String {
    format!(
        "127.0.0.1 localhost\n127.0.1.1 {name}\n::1 localhost ip6-localhost ip6-loopback\n\
         ff02::1 ip6-allnodes\nff02::2 ip6-allrouters\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_lead_below_run_or_are_not_followed() {
        let below = |target: &str| below_run(Path::new(target));
        assert_eq!(below("/run/berth/hosts"), Some(PathBuf::from("/run/berth/hosts")));
        assert_eq!(below("../run/hosts"), Some(PathBuf::from("/run/hosts")));
        assert_eq!(below("/run/../usr/x"), None);
        assert_eq!(below("hosts.real"), None);
        assert_eq!(below("/usr/lib/x"), None);
    }

    #[test]
    fn machine_ids_are_checked() {
        let id = "0123456789abcdef0123456789abcdef";
        assert_eq!(parse_id(&format!("{id}\n")).as_deref(), Some(id));
        for bad in ["", "\n", &id[1..], &id.to_uppercase(), &"0".repeat(32), &format!("{id}0")] {
            assert_eq!(parse_id(bad), None, "{bad}");
        }
        let made = new_id().expect("random bytes");
        assert_eq!(parse_id(&made), Some(made.clone()));
        assert_eq!(made.as_bytes()[12], b'4');
    }
}
