//! The hardware watchdog of this machine: armed by the first PID 1 in the initramfs, taken over by
//! the next one in the real root, told every few seconds that all is well.
//!
//! Whatever hangs from then on (PID 1 in either place, the kernel) restarts the machine, and the
//! slot picker counts one more start of a slot on trial. What hangs before the driver is there, in
//! the firmware or early in the kernel, is not covered.
//!
//! Only the thread of PID 1 that does the work speaks to it: one that did nothing else would go on
//! when the others hang.

use crate::error::{Error, On, chain};
use crate::log;
use std::process::Command;
use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant};
use sys::watchdog::Watchdog;

/// The longest that anything may take without a word in between: a disk that resets its link, or
/// is flushed at the end.
const TIMEOUT: Duration = Duration::from_secs(60);
/// Names the open file to the PID 1 of the real root.
const NUMBER: &str = "BERTH_WATCHDOG";
/// The longest that the kernel may take for one piece of work before it counts as hanging.
const PATIENCE: Duration = Duration::from_secs(3600);
/// Work that goes on is looked at this often.
const LOOK: Duration = Duration::from_millis(10);
/// It is told no more often than this.
const OFTEN: Duration = Duration::from_secs(1);

struct Armed {
    watchdog: Watchdog,
    told: Instant,
}

static ARMED: Mutex<Option<Armed>> = Mutex::new(None);

/// Arms the watchdog, where there is one and it is not armed yet.
pub fn arm() {
    let Ok(mut armed) = ARMED.lock() else { return };
    if armed.is_some() {
        return;
    }
    match Watchdog::arm().on("arm", "the watchdog") {
        Ok(Some(watchdog)) => {
            // It is armed from here on: let go of, it would restart a host that is well.
            if let Err(e) = watchdog.set_timeout(TIMEOUT).on("set the timeout of", "the watchdog") {
                log::warning(&chain(&e));
            }
            log::detail("the watchdog is armed");
            *armed = Some(Armed { watchdog, told: Instant::now() });
        }
        Ok(None) => {}
        Err(e) => log::warning(&chain(&e)),
    }
}

/// All is well so far.
pub fn alive() {
    let Ok(mut armed) = ARMED.lock() else { return };
    let Some(Armed { watchdog, told }) = armed.as_mut() else { return };
    if told.elapsed() < OFTEN {
        return;
    }
    *told = Instant::now();
    if let Err(e) = watchdog.keep_alive() {
        log::warning(&format!("watchdog: {e}"));
        *armed = None;
    }
}

/// Does one piece of work in the kernel that may take long and is all well meanwhile. Without an end
/// after an hour the machine restarts.
pub fn during<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    let start = Instant::now();
    thread::scope(|scope| {
        let work = scope.spawn(work);
        while !work.is_finished() {
            if start.elapsed() < PATIENCE {
                alive();
            }
            thread::sleep(LOOK);
        }
        work.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// Keeps it armed for the program that this one becomes, which is told by its environment.
pub fn hand_over(next: &mut Command) -> Result<(), Error> {
    let Ok(mut armed) = ARMED.lock() else { return Ok(()) };
    let Some(Armed { watchdog, .. }) = armed.as_mut() else { return Ok(()) };
    // The next PID 1 has the whole time before it.
    watchdog.keep_alive().on("tell", "the watchdog")?;
    let number = watchdog.hand_over().on("hand over", "the watchdog")?;
    next.env(NUMBER, number.to_string());
    Ok(())
}

/// Takes it over from the PID 1 of the initramfs. To be called once, before anything is opened.
pub fn take_over() {
    let number = std::env::var(NUMBER).ok().and_then(|number| number.parse().ok());
    let Some(number) = number else { return };
    match (Watchdog::take_over(number), ARMED.lock()) {
        (Ok(watchdog), Ok(mut armed)) => *armed = Some(Armed { watchdog, told: Instant::now() }),
        (Err(e), _) => log::warning(&format!("take over the watchdog: {e}")),
        (Ok(_), Err(_)) => {}
    }
}
