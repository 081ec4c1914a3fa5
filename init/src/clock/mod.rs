//! The wall clock: never behind what has passed for sure, and right when a time server answers.
//! Asking never holds up anything: it has a thread of its own.
//!
//! Before the runtime is there the clock may jump. Afterwards it is only made to run faster or
//! slower, unless it is so wrong that this would take too long.

pub mod sntp;

use crate::error::{Error, On};
use crate::log;
use crate::network::dns;
use crate::random::Random;
use crate::supervisor::back_off::BackOff;
use contract::host_config::TimeServer;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use std::{fs, io, thread};
use sys::clock as kernel;

/// Written by the image builder: seconds since 1970, as text.
const BUILD_TIME: &str = "/usr/lib/berth/build-time";
/// The last time that had passed for sure, in the same form.
const LAST_SEEN: &str = "/var/lib/berth/clock";
/// Time between two notes of the last time seen.
pub const SAVE_EVERY: Duration = Duration::from_secs(600);
/// A time that is further than this after the build time is a mistake.
const LONGEST_LIFE: Duration = Duration::from_secs(30 * 365 * 24 * 3600);
/// A clock that is off by at most this comes right by the kernel's own way, of 0.5 ms a second.
const SMALL: Duration = Duration::from_millis(500);
/// A clock that is off by at most this while containers run is made to run at [`RATE`].
const MOST_SLEWED: Duration = Duration::from_secs(60);
/// How much faster or slower, in thousandths: a minute takes twenty.
const RATE: i32 = 50;
/// Time between two questions, when the last was answered.
const ASK_EVERY: Duration = Duration::from_secs(3600);
/// Waits between questions that nobody answers.
const RETRY: BackOff = BackOff { first: Duration::from_secs(2), longest: Duration::from_secs(600) };
/// Longest wait for an answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(2);
/// Servers of one name that are tried.
const MAX_ADDRESSES: usize = 4;
/// The thread needs little.
const STACK: usize = 128 * 1024;

/// Now, since 1970.
fn now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

/// What had passed for sure when the kernel started.
static SURE: OnceLock<Duration> = OnceLock::new();
/// Whether a time server has said what time it is.
static SYNCHRONIZED: AtomicBool = AtomicBool::new(false);
/// Whether there may be containers, which do not expect the clock to jump.
static RUNTIME: AtomicBool = AtomicBool::new(false);
/// Who is asked.
static SERVERS: Mutex<Vec<TimeServer>> = Mutex::new(Vec::new());

/// The time that has passed for sure: when the image was built, or later when this host last
/// knew. Zero when neither is known.
fn floor(build_time: Option<Duration>, last_seen: Option<Duration>) -> Duration {
    let build_time = build_time.unwrap_or_default();
    match last_seen {
        Some(seen) if seen <= build_time.saturating_add(LONGEST_LIFE) => build_time.max(seen),
        _ => build_time,
    }
}

/// Whether a hardware clock that says `now` has forgotten the time, or never knew it.
fn is_absurd(now: Duration, floor: Duration, build_time: Option<Duration>) -> bool {
    let latest = build_time.map(|built| built.saturating_add(LONGEST_LIFE));
    now < floor || latest.is_some_and(|latest| now > latest)
}

fn read_seconds(path: &str) -> Option<Duration> {
    fs::read_to_string(path).ok()?.trim().parse().ok().map(Duration::from_secs)
}

/// Sets the clock to what has passed for sure, if it is behind that or absurdly ahead.
pub fn apply_floor() -> Result<(), Error> {
    let build_time = read_seconds(BUILD_TIME);
    let floor = floor(build_time, read_seconds(LAST_SEEN));
    let _ = SURE.set(floor.saturating_sub(kernel::since_boot()));
    let found = now();
    if is_absurd(found, floor, build_time) {
        let what = if found < floor { "behind" } else { "far ahead" };
        log::line(&format!("clock: was {what}, set to {} s since 1970", floor.as_secs()));
        kernel::set(floor).on("set", "the clock")?;
    }
    Ok(())
}

/// From now on containers may run.
pub fn runtime_has_started() {
    RUNTIME.store(true, Ordering::Relaxed);
}

/// Notes the time that has passed for sure, for the next boot of a machine whose hardware clock
/// forgets. What the hardware clock alone says is not sure: one that was in the future once would
/// keep the host there.
pub fn save() -> Result<(), Error> {
    let sure = match SYNCHRONIZED.load(Ordering::Relaxed) {
        true => now(),
        false => SURE.get().copied().unwrap_or_default() + kernel::since_boot(),
    };
    let new = format!("{LAST_SEEN}.new");
    fs::create_dir_all("/var/lib/berth").on("make", "/var/lib/berth")?;
    fs::write(&new, format!("{}\n", sure.as_secs())).on("write", &new)?;
    fs::rename(&new, LAST_SEEN).on("write", LAST_SEEN)
}

/// Who is to be asked: those that a person `configured`, else those that the network `told` and then
/// a public one.
fn servers(configured: Option<&[TimeServer]>, told: &[IpAddr]) -> Vec<TimeServer> {
    match configured {
        Some(servers) => servers.to_vec(),
        None => told.iter().copied().map(TimeServer::at).chain([TimeServer::public()]).collect(),
    }
}

/// Asks time servers now and every hour, in a thread of its own: those that are `configured`, else
/// those that the network has `told`. Called again, it asks these from the next time on.
pub fn keep_right(configured: Option<&[TimeServer]>, told: &[IpAddr]) {
    static STARTED: AtomicBool = AtomicBool::new(false);
    let servers = servers(configured, told);
    let nobody = servers.is_empty();
    *SERVERS.lock().unwrap_or_else(PoisonError::into_inner) = servers;
    if nobody || STARTED.swap(true, Ordering::Relaxed) {
        return;
    }
    let started = thread::Builder::new().name("clock".into()).stack_size(STACK).spawn(move || {
        let mut random = Random::new();
        let mut failures = 0;
        loop {
            let servers = SERVERS.lock().unwrap_or_else(PoisonError::into_inner).clone();
            let wait = match ask_any(&servers, &mut random) {
                Ok(()) => {
                    failures = 0;
                    ASK_EVERY
                }
                Err(e) => {
                    failures += 1;
                    // Once is enough: without a time server a host still runs.
                    if failures == 3 {
                        log::warning(&format!("clock: no time server answers: {e}"));
                    }
                    RETRY.delay(failures)
                }
            };
            thread::sleep(random.around(wait));
        }
    });
    if let Err(e) = started {
        log::warning(&format!("clock: start a thread: {e}"));
    }
}

/// The first good answer counts.
fn ask_any(servers: &[TimeServer], random: &mut Random) -> io::Result<()> {
    let mut last = io::Error::from(io::ErrorKind::NotFound);
    for TimeServer { host: server, port } in servers {
        let addresses = match dns::resolve(server, random) {
            Ok(addresses) => addresses,
            Err(e) => {
                last = io::Error::new(e.kind(), format!("{server}: {e}"));
                continue;
            }
        };
        for address in addresses.into_iter().take(MAX_ADDRESSES) {
            match ask(SocketAddr::new(address, *port), random).and_then(|time| set(time, server)) {
                Ok(()) => return Ok(()),
                Err(e) => last = io::Error::new(e.kind(), format!("{server} ({address}): {e}")),
            }
        }
    }
    Err(last)
}

/// What a server says, as time since 1970 and the kernel's time at which it was so.
fn ask(address: SocketAddr, random: &mut Random) -> io::Result<(Duration, Duration)> {
    let any: IpAddr = match address {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind((any, 0))?;
    socket.connect(address)?;
    socket.set_read_timeout(Some(ANSWER_WITHIN))?;
    let nonce = random.next_u64();
    let began = kernel::since_boot();
    socket.send(&sntp::encode(nonce))?;
    // Only this server's packets arrive; one that is not the answer ends the attempt.
    let mut buffer = [0; 128];
    let n = socket.recv(&mut buffer).map_err(dns::no_answer)?;
    let arrived = kernel::since_boot();
    let floor = read_seconds(BUILD_TIME).unwrap_or_default();
    let time = sntp::decode(&buffer[..n], nonce, floor, arrived.saturating_sub(began))
        .map_err(io::Error::other)?;
    Ok((time, arrived))
}

/// How a clock is made right.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Correction {
    /// It runs a little faster or slower until it is right.
    Slew,
    /// It runs a good deal faster or slower.
    Hurry,
    /// It jumps.
    Step,
}

/// What to do with a clock that is off by `off`.
fn correction(off: Duration, runtime: bool) -> Correction {
    match (off <= SMALL, runtime && off <= MOST_SLEWED) {
        (true, _) => Correction::Slew,
        (false, true) => Correction::Hurry,
        (false, false) => Correction::Step,
    }
}

fn set((time, at): (Duration, Duration), server: &str) -> io::Result<()> {
    let right = time + kernel::since_boot().saturating_sub(at);
    let clock = now();
    let off = right.abs_diff(clock);
    let behind = right > clock;
    let (sign, seconds) = (if behind { "behind" } else { "ahead" }, off.as_secs_f64());
    let runtime = RUNTIME.load(Ordering::Relaxed);
    match correction(off, runtime) {
        Correction::Slew => {
            let micros = i64::try_from(off.as_micros()).map_err(io::Error::other)?;
            kernel::slew(if behind { micros } else { -micros })?;
            if !SYNCHRONIZED.load(Ordering::Relaxed) {
                log::line(&format!("clock: is {seconds:.3} s {sign} by {server}, slewed"));
            }
        }
        Correction::Hurry => {
            let takes = off * 1000 / RATE.unsigned_abs();
            let minutes = takes.as_secs().div_ceil(60);
            log::line(&format!(
                "clock: is {seconds:.1} s {sign} by {server}, right in {minutes} min without a jump"
            ));
            kernel::set_rate(if behind { RATE } else { -RATE })?;
            thread::sleep(takes);
            kernel::set_rate(0)?;
        }
        Correction::Step => {
            kernel::set(right)?;
            let text = format!("clock: was {seconds:.1} s {sign}, set by {server}");
            match runtime {
                true => log::warning(&format!("{text}, while containers run")),
                false => log::line(&text),
            }
        }
    }
    kernel::declare_synchronized()?;
    if !SYNCHRONIZED.swap(true, Ordering::Relaxed)
        && let Err(e) = save()
    {
        log::warning(&crate::error::chain(&e));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_floor_is_the_later_of_the_two_unless_it_is_absurd() {
        let s = Duration::from_secs;
        let cases = [
            (None, None, s(0)),
            (Some(s(100)), None, s(100)),
            (Some(s(100)), Some(s(50)), s(100)),
            (Some(s(100)), Some(s(150)), s(150)),
            (Some(s(100)), Some(s(200) + LONGEST_LIFE), s(100)),
            (None, Some(s(150)), s(150)),
        ];
        for (build, seen, expected) in cases {
            assert_eq!(floor(build, seen), expected, "{build:?} {seen:?}");
        }
    }

    #[test]
    fn a_person_decides_who_is_asked_and_then_the_network() {
        let names = |configured: Option<&[TimeServer]>| -> Vec<String> {
            let told = [IpAddr::from([192, 0, 2, 123])];
            servers(configured, &told).into_iter().map(|server| server.host).collect()
        };
        assert_eq!(names(None), ["192.0.2.123", "pool.ntp.org"]);
        assert_eq!(names(Some(&[])), [""; 0]);
        assert_eq!(names(Some(&[TimeServer::public()])), ["pool.ntp.org"]);
    }

    #[test]
    fn a_hardware_clock_is_not_believed_outside_of_the_life_of_its_image() {
        let s = Duration::from_secs;
        let built = s(1_795_219_200);
        let cases = [
            (s(0), built, true),
            (built - s(1), built, true),
            (built, built, false),
            (built, built + s(5), true),
            (built + LONGEST_LIFE, built, false),
            (built + LONGEST_LIFE + s(1), built, true),
        ];
        for (now, floor, expected) in cases {
            assert_eq!(is_absurd(now, floor, Some(built)), expected, "{now:?} {floor:?}");
        }
        assert!(!is_absurd(built * 9, s(0), None));
    }

    #[test]
    fn the_clock_jumps_before_the_runtime_or_when_all_else_is_hopeless() {
        let ms = Duration::from_millis;
        let cases = [
            (ms(500), Correction::Slew, Correction::Slew),
            (ms(501), Correction::Step, Correction::Hurry),
            (ms(60_000), Correction::Step, Correction::Hurry),
            (ms(60_001), Correction::Step, Correction::Step),
        ];
        for (off, before, after) in cases {
            assert_eq!((correction(off, false), correction(off, true)), (before, after), "{off:?}");
        }
    }
}
