//! What to start, and with which tools.

use std::ffi::OsString;
use std::path::PathBuf;
use std::str::FromStr;

/// Where QEMU and its firmware lie.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Toolset {
    /// QEMU: the program with the arguments that come first, such as `qemu-system-x86_64`, or
    /// `ld.so --library-path DIR .../qemu-system-x86_64` for one that is not installed.
    pub qemu: Vec<OsString>,
    /// Folders that hold QEMU's own data, for `-L`; none for a QEMU that finds it by itself.
    pub data_dirs: Vec<PathBuf>,
    /// OVMF's code, 4 MB flavour, for machines without system management mode.
    pub ovmf_code: PathBuf,
    /// The variable store that belongs to it; each machine gets a copy of its own.
    pub ovmf_vars: PathBuf,
    /// A file where the answer of [`crate::accel::detect`] is kept until the next boot of this
    /// machine.
    pub accel_cache: Option<PathBuf>,
}

/// How the image is attached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Disk {
    /// virtio-blk
    #[default]
    Virtio,
    /// NVMe
    Nvme,
    /// SATA, on the chipset's AHCI controller
    Ahci,
    /// USB mass storage on xHCI
    Usb,
    /// SCSI, on virtio-scsi
    Scsi,
}

/// The guest's network card.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Nic {
    /// virtio-net
    #[default]
    Virtio,
    /// Intel 82574L
    E1000e,
    /// Intel 82576, which servers have in newer kinds; needs QEMU 8.0
    Igb,
    /// None, nor a network: a scenario brings its own in [`Config::extra`].
    None,
}

/// A name is not one of those that are known.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{given}` is not one of {known}")]
pub struct UnknownName {
    given: String,
    known: &'static str,
}

impl FromStr for Disk {
    type Err = UnknownName;

    fn from_str(name: &str) -> Result<Disk, UnknownName> {
        match name {
            "virtio" => Ok(Disk::Virtio),
            "nvme" => Ok(Disk::Nvme),
            "ahci" => Ok(Disk::Ahci),
            "usb" => Ok(Disk::Usb),
            "scsi" => Ok(Disk::Scsi),
            _ => Err(UnknownName { given: name.into(), known: "virtio, nvme, ahci, usb, scsi" }),
        }
    }
}

impl FromStr for Nic {
    type Err = UnknownName;

    fn from_str(name: &str) -> Result<Nic, UnknownName> {
        match name {
            "virtio" => Ok(Nic::Virtio),
            "e1000e" => Ok(Nic::E1000e),
            "igb" => Ok(Nic::Igb),
            _ => Err(UnknownName { given: name.into(), known: "virtio, e1000e, igb" }),
        }
    }
}

/// A TCP port of the guest that answers on 127.0.0.1 of this machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PortForward {
    /// Port of this machine; 0 chooses a free one, which [`crate::Machine::port`] tells.
    pub host: u16,
    /// Port of the guest.
    pub guest: u16,
}

/// A text is not `HOST:GUEST`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not HOST:GUEST, two port numbers")]
pub struct NotPorts(String);

impl FromStr for PortForward {
    type Err = NotPorts;

    /// Reads `8080:80`; `80` alone is `80:80`.
    fn from_str(text: &str) -> Result<PortForward, NotPorts> {
        let (host, guest) = text.split_once(':').unwrap_or((text, text));
        match (host.parse(), guest.parse()) {
            (Ok(host), Ok(guest)) if guest != 0 => Ok(PortForward { host, guest }),
            _ => Err(NotPorts(text.to_owned())),
        }
    }
}

/// What happens when the guest reboots.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnReboot {
    /// It boots again.
    #[default]
    Reset,
    /// QEMU ends.
    Exit,
}

/// A machine to start.
///
/// The image is opened with QEMU's `writeback`: a write that the guest saw completed is in this
/// machine's page cache, and a flush of the guest becomes an `fdatasync`. After
/// [`crate::Machine::pull_plug`] completed writes are therefore all there, flushed or not, and
/// those under way are there or not; a disk that forgets what was not flushed is more than this
/// does. With [`Config::ephemeral`] flushes are dropped, for nothing is kept anyway.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// The raw disk image.
    pub image: PathBuf,
    /// How it is attached.
    pub disk: Disk,
    /// The network card, on QEMU's user network: DHCP gives 10.0.2.15, the gateway is 10.0.2.2,
    /// the resolver 10.0.2.3.
    pub nic: Nic,
    /// Memory in MiB.
    pub memory_mib: u32,
    /// Processors.
    pub cpus: u32,
    /// Ports of the guest that answer on this machine.
    pub ports: Vec<PortForward>,
    /// A host config for the guest, over firmware config as `opt/berth/host.toml`.
    pub host_config: Option<PathBuf>,
    /// Leave the image as it is: writes go to an unnamed file in `$TMPDIR` that ends with QEMU.
    pub ephemeral: bool,
    /// A second serial line (`ttyS1`), for [`crate::Machine::shell`].
    pub debug_console: bool,
    /// An Intel 6300ESB watchdog that resets the machine.
    pub watchdog: bool,
    /// What happens when the guest reboots.
    pub on_reboot: OnReboot,
    /// Where everything that the guest writes on its console is appended, byte by byte.
    pub console_log: Option<PathBuf>,
    /// More arguments for QEMU, last on its command line.
    pub extra: Vec<OsString>,
}

impl Config {
    /// A machine with this image, 2 GiB of memory, two processors and no ports.
    pub fn new(image: impl Into<PathBuf>) -> Config {
        Config {
            image: image.into(),
            disk: Disk::default(),
            nic: Nic::default(),
            memory_mib: 2048,
            cpus: 2,
            ports: Vec::new(),
            host_config: None,
            ephemeral: false,
            debug_console: false,
            watchdog: false,
            on_reboot: OnReboot::default(),
            console_log: None,
            extra: Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_read() {
        let cases = [
            ("8080:80", Some((8080, 80))),
            ("80", Some((80, 80))),
            ("0:80", Some((0, 80))),
            ("80:0", None),
            ("0", None),
            ("70000:80", None),
            ("8080:", None),
            ("a:b", None),
            ("1:2:3", None),
            ("", None),
        ];
        for (text, expected) in cases {
            let found = text.parse::<PortForward>().ok().map(|p| (p.host, p.guest));
            assert_eq!(found, expected, "{text}");
        }
    }

    #[test]
    fn unknown_names_list_the_known_ones() {
        assert_eq!("nvme".parse(), Ok(Disk::Nvme));
        assert_eq!("e1000e".parse(), Ok(Nic::E1000e));
        let error = "ide".parse::<Disk>().expect_err("not a disk").to_string();
        assert_eq!(error, "`ide` is not one of virtio, nvme, ahci, usb, scsi");
    }
}
