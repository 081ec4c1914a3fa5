//! Serial lines and consoles.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// Opens a terminal for a child, without making it the controlling terminal of this process and
/// without waiting for a carrier.
pub fn open(path: &Path) -> io::Result<File> {
    let flags = libc::O_NOCTTY | libc::O_NONBLOCK;
    let file = OpenOptions::new().read(true).write(true).custom_flags(flags).open(path)?;
    let now = rustix::fs::fcntl_getfl(&file)?;
    rustix::fs::fcntl_setfl(&file, now - rustix::fs::OFlags::NONBLOCK)?;
    // A line without hardware behind it opens too; asking for its settings fails then.
    rustix::termios::tcgetattr(&file)?;
    Ok(file)
}

/// Opens a terminal for output that never holds up who writes: one that takes nothing more (Ctrl-S)
/// refuses with `WouldBlock`.
pub fn open_for_output(path: &Path) -> io::Result<File> {
    let flags = libc::O_NOCTTY | libc::O_NONBLOCK;
    OpenOptions::new().write(true).custom_flags(flags).open(path)
}

/// Columns and rows.
pub fn size(terminal: &File) -> io::Result<(u16, u16)> {
    let size = rustix::termios::tcgetwinsize(terminal)?;
    Ok((size.ws_col, size.ws_row))
}
