//! The one way in which a boot ends badly.

use crate::boot_state::{BootState, Fault};
use crate::error::{Error, chain};
use crate::{log, screen};
use contract::Slot;
use contract::handover::LAST_WORDS;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;
use sys::reboot::{restart, sync_within, within};

/// A person who stands before the machine shall be able to read why it restarts.
const TIME_TO_READ: Duration = Duration::from_secs(10);
/// A disk that hangs must not keep the machine from restarting.
const DISK_BOUND: Duration = Duration::from_secs(10);

/// Lines of the console that are kept for the updater.
const LAST_LINES: usize = 30;

/// What a failure is written to, as soon as it is known.
#[derive(Clone, Debug)]
struct Known {
    state: BootState,
    slot: Option<Slot>,
}

static KNOWN: Mutex<Option<Known>> = Mutex::new(None);
static FAILING: AtomicBool = AtomicBool::new(false);

/// From now on a failure is written to `state`, and costs `slot` its trial.
pub fn know(state: &BootState, slot: Option<Slot>) {
    if let Ok(mut known) = KNOWN.lock() {
        *known = Some(Known { state: state.clone(), slot });
    }
}

/// A panic of any thread is a failure like any other.
pub fn catch_panics() {
    std::panic::set_hook(Box::new(|info| {
        end(&format!("internal error: {info}"), Fault::Unclear);
    }));
}

/// This boot cannot go on.
pub fn fail(error: &Error) -> ! {
    let fault = match root_cause(error) {
        Error::NoRoot { .. } | Error::NoStart { .. } => Fault::SlotLost,
        _ => Fault::Unclear,
    };
    end(&chain(error), fault)
}

fn root_cause(error: &Error) -> &Error {
    match error {
        Error::Stage { source, .. } => root_cause(source),
        other => other,
    }
}

/// Says why, journals it, gives up the slot if that is due, flushes, and restarts.
fn end(reason: &str, fault: Fault) -> ! {
    if FAILING.swap(true, Ordering::SeqCst) {
        // A failure of the failure path, or of another thread meanwhile: the first one finishes,
        // and if it cannot, this ends the machine.
        thread::sleep(TIME_TO_READ + 3 * DISK_BOUND);
        restart_now();
    }
    screen::leave();
    log::line(&format!("error: {reason}"));
    let known = KNOWN.try_lock().ok().and_then(|known| known.clone());
    match known {
        Some(known) => {
            let reason = reason.to_owned();
            if within(DISK_BOUND, move || write(&known, fault, &reason)).is_none() {
                log::warning("the disk does not answer; the reason is not in the boot journal");
            }
        }
        None => log::warning("the disk was not found yet; the reason is not in the boot journal"),
    }
    log::line(&format!("restarting in {} s", TIME_TO_READ.as_secs()));
    thread::sleep(TIME_TO_READ);
    if !sync_within(DISK_BOUND) {
        log::warning("the disk does not answer; restarting without a flush");
    }
    restart_now();
}

/// The journal first: it tells why even if the record then cannot be written.
fn write(Known { state, slot }: &Known, fault: Fault, reason: &str) {
    if let Err(e) = state.journal(*slot, reason) {
        log::warning(&chain(&e));
    }
    let Some(slot) = *slot else { return };
    keep_last_words(slot);
    match state.give_up(slot, fault, reason) {
        Ok(true) => log::line(&format!("slot {slot} is given up")),
        Ok(false) => {}
        Err(e) => log::warning(&chain(&e)),
    }
}

/// For the updater of the other slot, which tells what became of this one. Where `/var` is not
/// mounted there is nothing to keep them in.
fn keep_last_words(slot: Slot) {
    let kept = sys::kernel_log::tail(LAST_LINES).and_then(|lines| {
        let path = format!("{LAST_WORDS}{slot}");
        sys::file::replace(Path::new(&path), (lines.join("\n") + "\n").as_bytes(), 0o600)
    });
    if let Err(e) = kept {
        log::detail(&format!("the last lines of the console are not kept: {e}"));
    }
}

fn restart_now() -> ! {
    let error = restart();
    log::line(&format!("error: restart: {error}"));
    // The kernel panics when PID 1 ends, and restarts by `panic=` of its command line.
    std::process::abort();
}
