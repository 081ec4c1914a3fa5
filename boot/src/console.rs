//! Lines for people, on every console that firmware knows: screen and serial line.

use crate::firmware::Firmware;
use core::fmt::{self, Write};

/// Shows one line.
pub fn say(firmware: Firmware, line: fmt::Arguments) {
    let mut console = Console { firmware, units: [0; 80], len: 0 };
    // Nothing can be done about a console that fails.
    let _ = write!(console, "berth-picker: {line}\r\n");
    console.flush();
}

struct Console {
    firmware: Firmware,
    /// UTF-16, with room for a NUL at the end.
    units: [u16; 80],
    len: usize,
}

impl Console {
    fn flush(&mut self) {
        self.units[self.len] = 0;
        self.firmware.print(&self.units[..=self.len]);
        self.len = 0;
    }
}

impl Write for Console {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for unit in text.encode_utf16() {
            self.units[self.len] = unit;
            self.len += 1;
            if self.len == self.units.len() - 1 {
                self.flush();
            }
        }
        Ok(())
    }
}
