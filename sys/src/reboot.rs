//! Ending it all.

use rustix::system::RebootCommand;
use std::io;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

/// Restarts the machine, without writing anything to a disk first.
pub fn restart() -> io::Error {
    reboot(RebootCommand::Restart)
}

/// Switches the machine off, without writing anything to a disk first.
pub fn power_off() -> io::Error {
    reboot(RebootCommand::PowerOff)
}

/// Makes Ctrl-Alt-Del send SIGINT to PID 1 instead of restarting the machine on the spot.
pub fn catch_ctrl_alt_del() -> io::Result<()> {
    Ok(rustix::system::reboot(RebootCommand::CadOff)?)
}

fn reboot(command: RebootCommand) -> io::Error {
    match rustix::system::reboot(command) {
        Err(e) => e.into(),
        Ok(()) => io::Error::other("the machine goes on"),
    }
}

/// Writes all filesystems to their disks. Returns whether that was done within `bound`: a disk
/// that hangs must not keep a machine from being restarted.
pub fn sync_within(bound: Duration) -> bool {
    within(bound, rustix::fs::sync).is_some()
}

/// Runs `work` in a thread of its own and waits for it no longer than `bound`. What is late goes
/// on by itself.
pub fn within<T: Send + 'static>(
    bound: Duration,
    work: impl FnOnce() -> T + Send + 'static,
) -> Option<T> {
    let (done, waiting) = mpsc::channel();
    // Without memory for a thread nothing is done; what depends on it is about to end anyway.
    thread::Builder::new()
        .spawn(move || {
            // Nobody waits any more when this fails.
            let _ = done.send(work());
        })
        .ok()?;
    waiting.recv_timeout(bound).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn late_work_is_not_waited_for() {
        let (_keep, never) = mpsc::channel::<()>();
        assert_eq!(within(Duration::from_millis(10), move || never.recv().is_ok()), None);
        assert_eq!(within(Duration::from_secs(60), || 7), Some(7));
    }
}
