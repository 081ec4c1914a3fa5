//! Writing to the console without ever being held up by it.

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::OFlags;
use std::fs::OpenOptions;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::time::Duration;

/// Writes `bytes` to `/dev/console`. A console that takes nothing for `patience` (a terminal
/// stopped with Ctrl-S) ends it with `WouldBlock`.
pub fn write(bytes: &[u8], patience: Duration) -> io::Result<()> {
    let patience = Timespec::try_from(patience).map_err(io::Error::other)?;
    let flags = (OFlags::NOCTTY | OFlags::NONBLOCK).bits() as i32;
    let mut console = OpenOptions::new().write(true).custom_flags(flags).open("/dev/console")?;
    let mut rest = bytes;
    while !rest.is_empty() {
        match console.write(rest) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => rest = &rest[written..],
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                let mut ready = [PollFd::new(&console, PollFlags::OUT)];
                if poll(&mut ready, Some(&patience))? == 0 {
                    return Err(e);
                }
            }
            Err(e) => return Err(e),
        }
    }
    Ok(())
}
