//! Writing to consoles without ever being held up by them.

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::OFlags;
use std::fs::OpenOptions;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::time::Duration;

/// The one that `/dev/console` leads to, whichever that is.
pub const PREFERRED: &str = "console";
/// The virtual terminal that is on the screen.
pub const SCREEN: &str = "tty0";

/// Names below `/dev` of all consoles that the kernel writes to (`console=` on its command line).
/// Empty: not known.
pub fn all() -> Vec<String> {
    let names = std::fs::read_to_string("/sys/class/tty/console/active").unwrap_or_default();
    names.split_ascii_whitespace().map(str::to_owned).collect()
}

/// Writes `bytes` to `/dev/NAME`. A console that takes nothing for `patience` (a terminal stopped with
/// Ctrl-S) ends it with `WouldBlock`.
pub fn write(name: &str, bytes: &[u8], patience: Duration) -> io::Result<()> {
    let patience = Timespec::try_from(patience).map_err(io::Error::other)?;
    let flags = (OFlags::NOCTTY | OFlags::NONBLOCK).bits() as i32;
    let path = format!("/dev/{name}");
    let mut console = OpenOptions::new().write(true).custom_flags(flags).open(path)?;
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
