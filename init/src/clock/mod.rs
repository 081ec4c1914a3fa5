//! The wall clock: never behind the image's build time nor the last time seen, and right when a
//! time server answers. Asking never holds up anything: it has a thread of its own.

pub mod sntp;

use crate::error::{Error, On};
use crate::log;
use crate::network::dns;
use crate::random::Random;
use crate::supervisor::back_off::BackOff;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use std::{fs, io, thread};
use sys::clock as kernel;

/// Written by the image builder: seconds since 1970, as text.
const BUILD_TIME: &str = "/usr/lib/berth/build-time";
/// The last time seen, in the same form.
const LAST_SEEN: &str = "/var/lib/berth/clock";
/// Time between two notes of the last time seen.
pub const SAVE_EVERY: Duration = Duration::from_secs(600);
/// A last time seen that is further than this after the build time is a mistake.
const LONGEST_LIFE: Duration = Duration::from_secs(30 * 365 * 24 * 3600);
/// A clock that is off by more than this is set; by less it is slewed.
const STEP: Duration = Duration::from_millis(500);
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

/// The time that has passed for sure: when the image was built, or later when this host last
/// knew. Zero when neither is known.
fn floor(build_time: Option<Duration>, last_seen: Option<Duration>) -> Duration {
    let build_time = build_time.unwrap_or_default();
    match last_seen {
        Some(seen) if seen <= build_time.saturating_add(LONGEST_LIFE) => build_time.max(seen),
        _ => build_time,
    }
}

fn read_seconds(path: &str) -> Option<Duration> {
    fs::read_to_string(path).ok()?.trim().parse().ok().map(Duration::from_secs)
}

/// Sets the clock forward if it is behind what has passed for sure.
pub fn apply_floor() -> Result<(), Error> {
    let floor = floor(read_seconds(BUILD_TIME), read_seconds(LAST_SEEN));
    if now() < floor {
        log::line(&format!("clock: was behind, set to {} s since 1970", floor.as_secs()));
        kernel::set(floor).on("set", "the clock")?;
    }
    Ok(())
}

/// Notes the time, for the next boot of a machine whose hardware clock forgets.
pub fn save() -> Result<(), Error> {
    let new = format!("{LAST_SEEN}.new");
    fs::create_dir_all("/var/lib/berth").on("make", "/var/lib/berth")?;
    fs::write(&new, format!("{}\n", now().as_secs())).on("write", &new)?;
    fs::rename(&new, LAST_SEEN).on("write", LAST_SEEN)
}

/// Asks `servers` now and every hour, in a thread of its own.
pub fn keep_right(servers: Vec<String>) {
    if servers.is_empty() {
        return;
    }
    let started = thread::Builder::new().name("clock".into()).stack_size(STACK).spawn(move || {
        let mut random = Random::new();
        let mut failures = 0;
        loop {
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
fn ask_any(servers: &[String], random: &mut Random) -> io::Result<()> {
    let mut last = io::Error::from(io::ErrorKind::NotFound);
    for server in servers {
        let addresses = match dns::resolve(server, random) {
            Ok(addresses) => addresses,
            Err(e) => {
                last = io::Error::new(e.kind(), format!("{server}: {e}"));
                continue;
            }
        };
        for address in addresses.into_iter().take(MAX_ADDRESSES) {
            match ask(address, random).and_then(|time| set(time, server)) {
                Ok(()) => return Ok(()),
                Err(e) => last = io::Error::new(e.kind(), format!("{server} ({address}): {e}")),
            }
        }
    }
    Err(last)
}

/// What a server says, as time since 1970 and the kernel's time at which it was so.
fn ask(address: IpAddr, random: &mut Random) -> io::Result<(Duration, Duration)> {
    let any: IpAddr = match address {
        IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind((any, 0))?;
    socket.connect(SocketAddr::new(address, sntp::PORT))?;
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

fn set((time, at): (Duration, Duration), server: &str) -> io::Result<()> {
    let right = time + kernel::since_boot().saturating_sub(at);
    let clock = now();
    let off = right.abs_diff(clock);
    let sign = if right > clock { "behind" } else { "ahead" };
    if off > STEP {
        kernel::set(right)?;
        log::line(&format!("clock: was {:.1} s {sign}, set by {server}", off.as_secs_f64()));
        if let Err(e) = save() {
            log::warning(&crate::error::chain(&e));
        }
    } else {
        let micros = i64::try_from(off.as_micros()).map_err(io::Error::other)?;
        kernel::slew(if right > clock { micros } else { -micros })?;
    }
    kernel::declare_synchronized()
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
}
