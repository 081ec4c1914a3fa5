//! Memory of the firmware, by whole pages.

use crate::firmware::{Firmware, PAGE};
use core::ops::{Deref, DerefMut};
use core::ptr::NonNull;
use core::slice;
use picker::machine::Fault;

/// Zeroed pages; given back when dropped.
pub struct Pages {
    firmware: Firmware,
    address: NonNull<u8>,
    count: usize,
}

impl Pages {
    /// At least `len` bytes.
    pub fn new(firmware: Firmware, len: usize) -> Result<Pages, Fault> {
        let count = len.div_ceil(PAGE).max(1);
        let address = firmware.allocate(count)?;
        // SAFETY: firmware has just given us these pages, which nobody else uses.
        unsafe { address.write_bytes(0, count * PAGE) };
        Ok(Pages { firmware, address, count })
    }
}

impl Deref for Pages {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: the pages are ours until dropped, initialised in `new`, and borrowed with us.
        unsafe { slice::from_raw_parts(self.address.as_ptr(), self.count * PAGE) }
    }
}

impl DerefMut for Pages {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as above, and borrowed exclusively.
        unsafe { slice::from_raw_parts_mut(self.address.as_ptr(), self.count * PAGE) }
    }
}

impl Drop for Pages {
    fn drop(&mut self) {
        // SAFETY: they come from `new`, and whoever borrowed them is done.
        unsafe { self.firmware.free(self.address, self.count) }
    }
}
