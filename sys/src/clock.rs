//! Clocks: reading the one that never jumps, setting the one that people read.

use rustix::time::{ClockId, Timespec};
use std::io;
use std::num::NonZeroU64;
use std::time::Duration;

/// Time since the kernel started, sleep included. Never jumps.
pub fn since_boot() -> Duration {
    let now = rustix::time::clock_gettime(ClockId::Boottime);
    Duration::new(now.tv_sec.unsigned_abs(), u32::try_from(now.tv_nsec).unwrap_or(0))
}

/// Sets the wall clock to this time since 1970 UTC.
pub fn set(time: Duration) -> io::Result<()> {
    let seconds = i64::try_from(time.as_secs()).map_err(io::Error::other)?;
    let time = Timespec { tv_sec: seconds, tv_nsec: time.subsec_nanos().into() };
    Ok(rustix::time::clock_settime(ClockId::Realtime, time)?)
}

/// Moves the wall clock by `micros` without a jump, at the kernel's 500 ppm.
pub fn slew(micros: i64) -> io::Result<()> {
    // SAFETY: timex is plain data for which all zeroes is a value.
    let mut request: libc::timex = unsafe { std::mem::zeroed() };
    request.modes = libc::ADJ_OFFSET_SINGLESHOT;
    request.offset = micros;
    adjust(&mut request)
}

/// Lets the wall clock run faster (or slower, when negative) by so many thousandths, at most 100.
pub fn set_rate(thousandths: i32) -> io::Result<()> {
    /// Microseconds that the clock goes forward in a hundredth of a second.
    const TICK: i64 = 10_000;
    // SAFETY: as above.
    let mut request: libc::timex = unsafe { std::mem::zeroed() };
    request.modes = libc::ADJ_TICK;
    request.tick = TICK + TICK * i64::from(thousandths) / 1000;
    adjust(&mut request)
}

/// Tells the kernel that the wall clock is right, upon which it keeps the hardware clock set from
/// it every 11 minutes.
pub fn declare_synchronized() -> io::Result<()> {
    // SAFETY: as above.
    let mut request: libc::timex = unsafe { std::mem::zeroed() };
    request.modes = libc::ADJ_STATUS | libc::ADJ_ESTERROR | libc::ADJ_MAXERROR;
    request.status = libc::STA_PLL;
    adjust(&mut request)
}

/// Lets the kernel wake this thread, and all that it starts from now on, so much later than asked for, if
/// that saves it an interrupt (prctl(2), PR_SET_TIMERSLACK).
pub fn set_timer_slack(slack: Duration) -> io::Result<()> {
    let nanoseconds = u64::try_from(slack.as_nanos()).unwrap_or(u64::MAX);
    Ok(rustix::thread::set_current_timer_slack(NonZeroU64::new(nanoseconds))?)
}

fn adjust(request: &mut libc::timex) -> io::Result<()> {
    // SAFETY: `request` is a valid timex that the kernel reads and writes.
    match unsafe { libc::adjtimex(request) } {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}
