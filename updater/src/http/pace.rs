//! How fast, and how long to wait: decided by numbers alone.

use std::time::{Duration, Instant};

/// Lets a bounded number of bytes a second pass.
#[derive(Debug)]
pub struct Bucket {
    /// Bytes a second.
    rate: u64,
    /// When everything that was taken so far has been paid for.
    paid: Option<Instant>,
}

impl Bucket {
    /// `rate` bytes a second.
    pub fn new(rate: u64) -> Bucket {
        Bucket { rate: rate.max(1), paid: None }
    }

    /// How long to wait after having taken `bytes`. Time that was left unused before does not count.
    pub fn take(&mut self, bytes: u64, now: Instant) -> Duration {
        let cost = Duration::from_nanos(
            u64::try_from(u128::from(bytes) * 1_000_000_000 / u128::from(self.rate))
                .unwrap_or(u64::MAX),
        );
        let paid = self.paid.map_or(now, |paid| paid.max(now)) + cost;
        self.paid = Some(paid);
        paid - now
    }

    /// Most bytes to take at once, so that waits stay short.
    pub fn portion(&self, most: usize) -> usize {
        usize::try_from(self.rate / 8).unwrap_or(most).clamp(most.min(512), most)
    }
}

/// Notices a server that sends, but too slowly.
#[derive(Debug)]
pub struct Speed {
    /// Fewest bytes a second.
    slowest: u64,
    /// Over how long.
    window: Duration,
    bytes: u64,
    time: Duration,
}

impl Speed {
    /// At least `slowest` bytes a second in each `window`.
    pub fn new(slowest: u64, window: Duration) -> Speed {
        Speed { slowest, window, bytes: 0, time: Duration::ZERO }
    }

    /// Counts a read of `bytes` that took `time`; whether the server is fast enough so far.
    pub fn suffices(&mut self, bytes: u64, time: Duration) -> bool {
        self.bytes += bytes;
        self.time += time;
        if self.time < self.window {
            return true;
        }
        let needed = u128::from(self.slowest) * self.time.as_millis() / 1000;
        let enough = u128::from(self.bytes) >= needed;
        (self.bytes, self.time) = (0, Duration::ZERO);
        enough
    }
}

/// The pause after failed round `round` (from 0): doubled each time, at most `longest`, and between
/// half of it and all of it, as `random` has it, so that hosts which failed together do not come
/// back together.
pub fn pause(first: Duration, longest: Duration, round: u32, random: u64) -> Duration {
    let full = first.saturating_mul(1 << round.min(20)).min(longest);
    full / 2 + (full / 2).mul_f64(random as f64 / u64::MAX as f64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_bucket_never_lets_more_through(
            rate in 1u64..1_000_000,
            steps in prop::collection::vec((0u64..100_000, 0u64..500), 1..50),
        ) {
            let start = Instant::now();
            let (mut bucket, mut now, mut sum) = (Bucket::new(rate), start, 0u64);
            for (bytes, idle) in steps {
                now += Duration::from_millis(idle);
                sum += bytes;
                now += bucket.take(bytes, now);
                let allowed = (now - start).as_secs_f64() * rate as f64 + 1.0;
                prop_assert!(sum as f64 <= allowed, "{sum} bytes, {allowed} allowed");
            }
        }

        #[test]
        fn pauses_grow_and_are_bounded(round in 0u32..100, random: u64) {
            let (first, longest) = (Duration::from_secs(1), Duration::from_secs(60));
            let it = pause(first, longest, round, random);
            prop_assert!(it >= first / 2 && it <= longest);
            let full = first.saturating_mul(1 << round.min(20)).min(longest);
            prop_assert!(it >= full / 2);
        }
    }

    #[test]
    fn slow_is_what_is_below_the_bound_for_a_whole_window() {
        let second = Duration::from_secs(1);
        let mut speed = Speed::new(100, 3 * second);
        assert!(speed.suffices(0, 2 * second));
        assert!(speed.suffices(300, second));
        assert!(speed.suffices(0, 2 * second));
        assert!(!speed.suffices(299, second));
        assert!(!speed.suffices(100, 30 * second));
    }
}
