//! Child processes with deadlines.

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use std::io;
use std::process::{Child, ExitStatus};
use std::time::{Duration, Instant};

/// Waits for the end of `child`, at most this long. `None`: it still runs.
pub fn wait_within(child: &mut Child, within: Duration) -> io::Result<Option<ExitStatus>> {
    let end = Instant::now() + within;
    let pid = Pid::from_child(child);
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(None);
        }
        // Not reaped yet, so the number is still that of our child.
        let pidfd = pidfd_open(pid, PidfdFlags::empty())?;
        let timeout = Timespec::try_from(left).unwrap_or(Timespec { tv_sec: 60, tv_nsec: 0 });
        match poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], Some(&timeout)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// Ends `child` at once and reaps it.
pub fn kill(child: &mut Child) {
    // Both fail only for a child that has been reaped already.
    let _ = child.kill();
    let _ = child.wait();
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    #[test]
    fn a_child_is_awaited_or_not() {
        let mut child = Command::new("sleep").arg("60").spawn().expect("sleep");
        let early = wait_within(&mut child, Duration::from_millis(20)).expect("wait");
        assert_eq!(early, None);
        kill(&mut child);
        let ended = wait_within(&mut child, Duration::from_secs(10)).expect("wait");
        assert!(ended.is_some_and(|status| !status.success()));
    }
}
