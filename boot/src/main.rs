//! The UEFI program around the slot picker: it finds its disk and lends [`picker::pick`] the
//! firmware.
//!
//! It is an ordinary position-independent ELF program for the host's own target, linked without
//! any library (`build.rs`) and turned into a PE file afterwards, so that no other toolchain is
//! needed. Unsafe code is confined to this program; the library beside it has none.
#![no_std]
#![no_main]
#![allow(unsafe_code)]

mod console;
mod disk;
mod firmware;
mod loader_interface;
mod memory;
mod pages;

use console::say;
use contract::Slot;
use core::fmt;
use core::panic::PanicInfo;
use disk::OwnDisk;
use firmware::Firmware;
use loader_interface::LoaderInterface;
use pages::Pages;
use picker::clock::{Calendar, unix_seconds};
use picker::machine::{Fault, Machine};
use uefi_raw::table::system::SystemTable;
use uefi_raw::{Handle, Status};

/// How long a person can read why nothing boots.
const RESET_AFTER_SECONDS: u64 = 60;

/// Where firmware enters.
///
/// # Safety
///
/// Only firmware calls it, as UEFI 2.10, section 4.1 says: `image` is this program, `system` the
/// system table, and both stay valid until a system takes over.
#[unsafe(no_mangle)]
pub unsafe extern "efiapi" fn efi_main(image: Handle, system: *const SystemTable) -> Status {
    // SAFETY: the caller keeps its promise.
    let firmware = unsafe { Firmware::enter(image, system) };
    let variables = LoaderInterface::started(firmware);
    match OwnDisk::find(firmware) {
        Ok(disk) => {
            variables.loaded_from(disk.partition());
            picker::pick(&mut Host { firmware, disk, variables });
        }
        Err(why) => say(firmware, format_args!("nothing is bootable: {why}")),
    }
    reset(firmware)
}

/// Resets the machine when a person has had the time to read the screen. Another attempt costs
/// nothing, and a disk that was not ready may be by then.
fn reset(firmware: Firmware) -> ! {
    say(firmware, format_args!("reset in {RESET_AFTER_SECONDS} seconds"));
    firmware.arm_watchdog();
    firmware.rest(RESET_AFTER_SECONDS);
    firmware.cold_reset()
}

#[panic_handler]
fn panic(info: &PanicInfo) -> ! {
    match Firmware::current() {
        Some(firmware) => {
            say(firmware, format_args!("{info}"));
            reset(firmware)
        }
        None => loop {
            core::hint::spin_loop();
        },
    }
}

struct Host {
    firmware: Firmware,
    disk: OwnDisk,
    variables: LoaderInterface,
}

impl Machine for Host {
    type Pages = Pages;
    type Image = Handle;

    fn sector_size(&self) -> u32 {
        self.disk.sector_size()
    }

    fn sectors(&self) -> u64 {
        self.disk.sectors()
    }

    fn read(&mut self, lba: u64, out: &mut [u8]) -> Result<(), Fault> {
        self.disk.read(lba, out)
    }

    fn write(&mut self, lba: u64, bytes: &[u8]) -> Result<(), Fault> {
        self.disk.write(lba, bytes)
    }

    fn flush(&mut self) -> Result<(), Fault> {
        self.disk.flush()
    }

    fn pages(&mut self, len: usize) -> Result<Pages, Fault> {
        Pages::new(self.firmware, len)
    }

    fn time(&mut self) -> u64 {
        self.firmware.time().map_or(0, |time| {
            unix_seconds(Calendar {
                year: time.year,
                month: time.month,
                day: time.day,
                hour: time.hour,
                minute: time.minute,
                second: time.second,
                zone: time.time_zone,
            })
        })
    }

    fn say(&mut self, line: fmt::Arguments) {
        say(self.firmware, line);
    }

    fn rearm_watchdog(&mut self) {
        self.firmware.arm_watchdog();
    }

    fn load(&mut self, uki: &[u8]) -> Result<Handle, Fault> {
        self.firmware.load_image(uki)
    }

    fn start(&mut self, slot: Slot, image: Handle) -> Fault {
        self.variables.starting(slot);
        self.firmware.start_image(image)
    }
}
