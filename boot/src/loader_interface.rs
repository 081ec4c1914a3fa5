//! What the system that starts can know of its start: variables of the Boot Loader Interface
//! (systemd.io/BOOT_LOADER_INTERFACE), UTF-16 with a NUL at the end, gone with the next reset.

use crate::firmware::Firmware;
use contract::Slot;
use contract::gpt::Guid;
use contract::text::Text;
use core::arch::x86_64::{__cpuid, _rdtsc};
use core::fmt::{self, Write};
use uefi_raw::guid;

const VENDOR: uefi_raw::Guid = guid!("4a67b082-0a4c-41cf-b6c7-440b29bb8c4f");

/// Sets the variables.
pub struct LoaderInterface {
    firmware: Firmware,
    /// Ticks of the processor's clock in a microsecond; 0 when that cannot be known.
    ticks_per_microsecond: u64,
}

impl LoaderInterface {
    /// The picker has started just now.
    pub fn started(firmware: Firmware) -> LoaderInterface {
        let now = ticks();
        let this =
            LoaderInterface { firmware, ticks_per_microsecond: ticks_per_microsecond(firmware) };
        this.set("LoaderInfo", format_args!("berth-picker {}", env!("CARGO_PKG_VERSION")));
        this.set_time("LoaderTimeInitUSec", now);
        this
    }

    /// The picker was loaded from this partition.
    pub fn loaded_from(&self, partition: Option<Guid>) {
        if let Some(guid) = partition {
            self.set("LoaderDevicePartUUID", format_args!("{guid}"));
        }
    }

    /// `slot` is about to start.
    pub fn starting(&self, slot: Slot) {
        self.set("LoaderEntrySelected", format_args!("slot-{slot}"));
        self.set_time("LoaderTimeExecUSec", ticks());
    }

    fn set_time(&self, name: &str, ticks: u64) {
        if let Some(microseconds) = ticks.checked_div(self.ticks_per_microsecond) {
            self.set(name, format_args!("{microseconds}"));
        }
    }

    fn set(&self, name: &str, value: fmt::Arguments) {
        let mut text = Text::<64>::EMPTY;
        // All values are shorter than that.
        let _ = text.write_fmt(value);
        let (mut name_units, mut bytes) = ([0; 32], [0; 2 * 65]);
        let name_len = name.len() + 1;
        for (out, unit) in name_units.iter_mut().zip(name.encode_utf16()) {
            *out = unit;
        }
        for (out, unit) in bytes.chunks_exact_mut(2).zip(text.as_str().encode_utf16()) {
            out.copy_from_slice(&unit.to_le_bytes());
        }
        let len = 2 * (text.as_str().encode_utf16().count() + 1);
        self.firmware.set_variable(&VENDOR, &name_units[..name_len], &bytes[..len]);
    }
}

/// Ticks of the processor's clock since it was reset.
fn ticks() -> u64 {
    // SAFETY: every x86-64 processor has it, and firmware runs programs where it is allowed.
    unsafe { _rdtsc() }
}

fn ticks_per_microsecond(firmware: Firmware) -> u64 {
    const LEAF: u32 = 0x15;
    if __cpuid(0).eax >= LEAF {
        let clock = __cpuid(LEAF);
        let crystal = u64::from(clock.ecx) * u64::from(clock.ebx);
        if let Some(hertz) = crystal.checked_div(u64::from(clock.eax))
            && hertz >= 1_000_000
        {
            return hertz / 1_000_000;
        }
    }
    let before = ticks();
    firmware.wait(1000);
    (ticks() - before) / 1000
}
