//! A [`Report`] for people.

use super::report::{Report, Slot};
use std::fmt::{self, Display, Formatter};

impl Display for Report {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}: {}, disk {}", self.image, size(self.size), self.disk_guid)?;
        for (name, fault) in ["primary", "backup"].iter().zip(&self.table_faults) {
            if let Some(fault) = fault {
                writeln!(f, "  {name} partition table: {fault}")?;
            }
        }
        writeln!(f, "\nPartitions")?;
        for p in &self.partitions {
            let (at, len) = (size(p.offset), size(p.size));
            writeln!(f, "  {:<12} {len:>10} at {at:>10}  {}", clean(&p.label), p.guid)?;
        }
        writeln!(f, "\nESP")?;
        match (&self.esp.fault, &self.esp.picker_sha256) {
            (Some(fault), _) => writeln!(f, "  cannot be read: {}", clean(fault))?,
            (None, None) => writeln!(f, "  there is no slot picker")?,
            (None, Some(sha256)) => {
                let len = size(self.esp.picker_size.unwrap_or(0));
                writeln!(f, "  slot picker  {len}, sha256 {sha256}")?;
            }
        }
        if let Some(config) = &self.esp.host_config {
            writeln!(f, "  berth/host.toml")?;
            indented(f, config, "    ")?;
        }
        writeln!(f, "\nBoot record")?;
        match self.record.sequence {
            Some(sequence) => writeln!(f, "  sequence     {sequence}")?,
            None => writeln!(f, "  there is none")?,
        }
        if self.record.recovered {
            writeln!(f, "  both copies are lost; this is what the boot partitions say")?;
        }
        writeln!(f, "  copies       {}, {}", self.record.copies[0], self.record.copies[1])?;
        match &self.next_boot {
            Some(next) => writeln!(f, "  next boot    slot {} ({})", next.slot, next.why)?,
            None => writeln!(f, "  next boot    nothing can be started")?,
        }
        for slot in &self.slots {
            show_slot(f, slot)?;
        }
        if !self.journal.is_empty() {
            writeln!(f, "\nBoot journal")?;
        }
        for entry in &self.journal {
            let slot = entry.slot.as_deref().unwrap_or("-");
            let (time, text) = (time(entry.time), &entry.text);
            writeln!(f, "  {:>4}  {time}  {:<8} {slot}  {text}", entry.number, entry.writer)?;
        }
        if !self.packages.is_empty() {
            writeln!(f, "\nPackages ({})", self.packages.len())?;
        }
        for package in &self.packages {
            writeln!(f, "  {:<32} {}", clean(&package.name), clean(&package.version))?;
        }
        Ok(())
    }
}

fn show_slot(f: &mut Formatter<'_>, slot: &Slot) -> fmt::Result {
    write!(f, "\nSlot {}: {}", slot.slot, slot.state)?;
    if let Some(tries) = slot.tries {
        write!(f, ", {tries} tries left")?;
    }
    writeln!(f, ", priority {}", slot.priority)?;
    writeln!(f, "  version      {}", slot.version)?;
    if !slot.reason.is_empty() {
        writeln!(f, "  given up     {}", slot.reason)?;
    }
    writeln!(f, "  root hash    {}", slot.root_hash)?;
    writeln!(f, "  kernel image {}, sha256 {}", size(slot.uki_size), slot.uki_sha256)?;
    for fault in &slot.faults {
        writeln!(f, "    {}", clean(fault))?;
    }
    for section in &slot.sections {
        let (at, len) = (size(section.offset), size(section.size));
        writeln!(f, "    {:<10} {len:>10} at {at:>10}", clean(&section.name))?;
    }
    if let Some(uname) = &slot.uname {
        writeln!(f, "  kernel       {}", clean(uname))?;
    }
    if let Some(cmdline) = &slot.cmdline {
        writeln!(f, "  command line {}", clean(cmdline))?;
    }
    if let Some(os_release) = &slot.os_release {
        writeln!(f, "  os-release")?;
        indented(f, os_release, "    ")?;
    }
    Ok(())
}

fn indented(f: &mut Formatter<'_>, text: &str, indent: &str) -> fmt::Result {
    text.lines().try_for_each(|line| writeln!(f, "{indent}{}", clean(line)))
}

/// Control characters of an image must not reach a terminal.
pub(super) fn clean(text: &str) -> String {
    text.chars().map(|c| if c.is_control() && c != '\t' { '\u{fffd}' } else { c }).collect()
}

fn size(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut value = bytes as f64;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    match unit {
        0 => format!("{bytes} B"),
        _ if value.fract() == 0.0 => format!("{value:.0} {}", UNITS[unit]),
        _ => format!("{value:.1} {}", UNITS[unit]),
    }
}

fn time(seconds: u64) -> String {
    let known = i64::try_from(seconds).ok().filter(|s| *s > 0);
    match known.and_then(|s| jiff::Timestamp::from_second(s).ok()) {
        Some(time) => time.strftime("%Y-%m-%d %H:%M:%S").to_string(),
        None => "no clock           ".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_times_read_well() {
        let cases = [(0, "0 B"), (4096, "4 KiB"), (1 << 31, "2 GiB"), (124_416, "121.5 KiB")];
        for (bytes, expected) in cases {
            assert_eq!(size(bytes), expected);
        }
        assert_eq!(time(1_700_000_000), "2023-11-14 22:13:20");
        assert!(time(u64::MAX).starts_with("no clock") && time(0).starts_with("no clock"));
        assert_eq!(clean("a\x1b[2J"), "a\u{fffd}[2J");
    }
}
