//! QEMU's command line, as a function of values.

use crate::accel::Accelerator;
use crate::config::{Config, Disk, Nic, OnReboot, PortForward, Toolset};
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

/// Files and sockets of one machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Runtime {
    /// Its own copy of the firmware's variables.
    pub vars: PathBuf,
    /// Where QEMU listens for control commands.
    pub control: PathBuf,
    /// Where QEMU listens for the debug shell.
    pub shell: PathBuf,
    /// Logical sector size in bytes that the image's partition table is made for.
    pub sector_size: u32,
    /// The ports, none of them 0.
    pub ports: Vec<PortForward>,
}

/// Arguments that every QEMU gets, the probe's too: the program, its data, and no devices but
/// those that are named.
pub fn base(tools: &Toolset) -> Vec<OsString> {
    let mut args = Arguments(tools.qemu.clone());
    for dir in &tools.data_dirs {
        args.0.extend(["-L".into(), dir.into()]);
    }
    args.words("-no-user-config -nodefaults -display none -vga none");
    args.0
}

/// The whole command line, program first. The guest's console is QEMU's standard input and output.
pub fn arguments(
    tools: &Toolset,
    accelerator: Accelerator,
    config: &Config,
    runtime: &Runtime,
) -> Vec<OsString> {
    let mut args = Arguments(base(tools));
    args.words(accelerator.arguments());
    // No system management mode: the firmware that needs it is the one for Secure Boot.
    args.words("-machine q35,smm=off,vmport=off");
    args.words(&format!("-m {} -smp {}", config.memory_mib, config.cpus));

    args.option("-drive", "if=pflash,unit=0,format=raw,readonly=on,file=", &tools.ovmf_code);
    args.option("-drive", "if=pflash,unit=1,format=raw,file=", &runtime.vars);

    let mut drive = "if=none,id=disk,format=raw,cache=writeback,discard=unmap".to_owned();
    if config.ephemeral {
        drive += ",snapshot=on";
    }
    args.option("-drive", &(drive + ",file="), &config.image);
    let mut device = match config.disk {
        Disk::Virtio => "-device virtio-blk-pci,drive=disk,bootindex=0",
        Disk::Nvme => "-device nvme,drive=disk,serial=berth,bootindex=0",
        Disk::Ahci => "-device ide-hd,drive=disk,bus=ide.0,bootindex=0",
        Disk::Usb => "-device qemu-xhci -device usb-storage,drive=disk,bootindex=0",
        Disk::Scsi => "-device virtio-scsi-pci -device scsi-hd,drive=disk,bootindex=0",
    }
    .to_owned();
    // QEMU's own default else, which it spells out for no device.
    if runtime.sector_size != 512 {
        let size = runtime.sector_size;
        device += &format!(",logical_block_size={size},physical_block_size={size}");
    }
    args.words(&device);

    // Without a boot ROM: the firmware must not go on to the network when the disk fails.
    let card = match config.nic {
        Nic::Virtio => Some("-device virtio-net-pci,netdev=net,romfile="),
        Nic::E1000e => Some("-device e1000e,netdev=net,romfile="),
        Nic::Igb => Some("-device igb,netdev=net,romfile="),
        Nic::None => None,
    };
    if let Some(card) = card {
        let mut network = "user,id=net".to_owned();
        for PortForward { host, guest } in &runtime.ports {
            network += &format!(",hostfwd=tcp:127.0.0.1:{host}-:{guest}");
        }
        args.0.extend(["-netdev".into(), network.into()]);
        args.words(card);
    }
    args.words("-object rng-builtin,id=rng -device virtio-rng-pci,rng=rng");

    args.words("-chardev stdio,id=console,signal=off -serial chardev:console");
    if config.debug_console {
        let socket = "socket,id=shell,server=on,wait=off,path=";
        args.option("-chardev", socket, &runtime.shell);
        args.words("-serial chardev:shell");
    }
    let socket = "socket,id=control,server=on,wait=off,path=";
    args.option("-chardev", socket, &runtime.control);
    args.words("-mon chardev=control,mode=control");

    if let Some(file) = &config.host_config {
        args.option("-fw_cfg", "name=opt/berth/host.toml,file=", file);
    }
    if config.watchdog {
        args.words("-device i6300esb -action watchdog=reset");
    }
    if config.on_reboot == OnReboot::Exit {
        args.words("-action reboot=shutdown");
    }
    args.0.extend(config.extra.iter().cloned());
    args.0
}

/// Grows an argument list.
struct Arguments(Vec<OsString>);

impl Arguments {
    /// Arguments without spaces in them.
    fn words(&mut self, words: &str) {
        self.0.extend(words.split(' ').map(OsString::from));
    }

    /// An option whose value ends with a path.
    fn option(&mut self, name: &str, value: &str, path: &Path) {
        let mut value = OsString::from(value);
        value.push(escaped(path.as_os_str()));
        self.0.extend([name.into(), value]);
    }
}

/// A comma ends a value of QEMU's option lists, unless it is doubled.
fn escaped(path: &OsStr) -> OsString {
    let mut bytes = Vec::with_capacity(path.len());
    for &byte in path.as_bytes() {
        bytes.push(byte);
        if byte == b',' {
            bytes.push(byte);
        }
    }
    OsString::from_vec(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tools() -> Toolset {
        Toolset {
            qemu: vec!["ld.so".into(), "qemu".into()],
            data_dirs: vec!["/d1".into(), "/d2".into()],
            ovmf_code: "/code.fd".into(),
            ovmf_vars: "/vars.fd".into(),
            accel_cache: None,
        }
    }

    fn line(accelerator: Accelerator, config: &Config) -> String {
        line_for(512, accelerator, config)
    }

    fn line_for(sector_size: u32, accelerator: Accelerator, config: &Config) -> String {
        let runtime = Runtime {
            vars: "/run/vars".into(),
            control: "/run/qmp".into(),
            shell: "/run/shell".into(),
            sector_size,
            ports: config.ports.clone(),
        };
        let args = arguments(&tools(), accelerator, config, &runtime);
        let args: Vec<_> = args.iter().map(|a| a.to_str().expect("UTF-8 in tests")).collect();
        args.join(" ")
    }

    #[test]
    fn a_plain_machine() {
        let expected = "ld.so qemu -L /d1 -L /d2 -no-user-config -nodefaults -display none \
            -vga none -accel tcg,thread=multi -cpu max,-cx16,-erms,-fsrm,-la57 \
            -machine q35,smm=off,vmport=off -m 2048 -smp 2 \
            -drive if=pflash,unit=0,format=raw,readonly=on,file=/code.fd \
            -drive if=pflash,unit=1,format=raw,file=/run/vars \
            -drive if=none,id=disk,format=raw,cache=writeback,discard=unmap,file=/a.raw \
            -device virtio-blk-pci,drive=disk,bootindex=0 \
            -netdev user,id=net -device virtio-net-pci,netdev=net,romfile= \
            -object rng-builtin,id=rng -device virtio-rng-pci,rng=rng \
            -chardev stdio,id=console,signal=off -serial chardev:console \
            -chardev socket,id=control,server=on,wait=off,path=/run/qmp \
            -mon chardev=control,mode=control";
        assert_eq!(line(Accelerator::Tcg, &Config::new("/a.raw")), expected);
    }

    #[test]
    fn an_image_for_large_sectors_gets_a_disk_with_such() {
        let sizes = ",bootindex=0,logical_block_size=4096,physical_block_size=4096 ";
        for disk in [Disk::Virtio, Disk::Nvme, Disk::Usb, Disk::Scsi] {
            let config = Config { disk, ..Config::new("/a.raw") };
            let line = line_for(4096, Accelerator::Tcg, &config);
            assert!(line.contains(sizes), "{line}");
        }
    }

    #[test]
    fn each_choice_changes_its_part() {
        let plain = || Config::new("/a.raw");
        let cases: [(Config, &str); 16] = [
            (Config { disk: Disk::Nvme, ..plain() }, "-device nvme,drive=disk,serial=berth,boot"),
            (Config { disk: Disk::Ahci, ..plain() }, "-device ide-hd,drive=disk,bus=ide.0,boot"),
            (
                Config { disk: Disk::Usb, ..plain() },
                "-device qemu-xhci -device usb-storage,drive=disk,bootindex=0 ",
            ),
            (
                Config { disk: Disk::Scsi, ..plain() },
                "-device virtio-scsi-pci -device scsi-hd,drive=disk,bootindex=0 ",
            ),
            (Config { nic: Nic::E1000e, ..plain() }, "-device e1000e,netdev=net,romfile= "),
            (Config { nic: Nic::Igb, ..plain() }, "-device igb,netdev=net,romfile= "),
            (Config { memory_mib: 512, cpus: 1, ..plain() }, " -m 512 -smp 1 "),
            (
                Config {
                    ports: vec![
                        PortForward { host: 8080, guest: 80 },
                        PortForward { host: 2, guest: 3 },
                    ],
                    ..plain()
                },
                ",hostfwd=tcp:127.0.0.1:8080-:80,hostfwd=tcp:127.0.0.1:2-:3 ",
            ),
            (
                Config { host_config: Some("/h,1.toml".into()), ..plain() },
                " -fw_cfg name=opt/berth/host.toml,file=/h,,1.toml",
            ),
            (Config { ephemeral: true, ..plain() }, "discard=unmap,snapshot=on,file=/a.raw "),
            (
                Config { debug_console: true, ..plain() },
                "-serial chardev:console -chardev socket,id=shell,server=on,wait=off,\
                 path=/run/shell -serial chardev:shell ",
            ),
            (Config { watchdog: true, ..plain() }, " -device i6300esb -action watchdog=reset"),
            (Config { on_reboot: OnReboot::Exit, ..plain() }, " -action reboot=shutdown"),
            (Config { extra: vec!["-S".into()], ..plain() }, "mode=control -S"),
            (Config::new("/with,comma.raw"), "file=/with,,comma.raw "),
            (plain(), "-m 2048"),
        ];
        for (config, part) in cases {
            let line = line(Accelerator::Kvm, &config);
            assert!(line.contains(part), "{part} in {line}");
            assert!(line.contains(" -accel kvm -cpu host "), "{line}");
        }
    }
}
