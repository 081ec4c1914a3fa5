//! How long to wait before something that failed is tried again.

use std::time::Duration;

/// Waits that double.
#[derive(Clone, Copy, Debug)]
pub struct BackOff {
    /// After the first failure.
    pub first: Duration,
    /// After many.
    pub longest: Duration,
}

impl BackOff {
    /// The wait after the `failures`-th failure in a row; none without a failure.
    pub fn delay(&self, failures: u32) -> Duration {
        match failures {
            0 => Duration::ZERO,
            n => {
                let factor = 1u32.checked_shl(n - 1).unwrap_or(u32::MAX);
                self.first.saturating_mul(factor).min(self.longest)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn doubles_up_to_its_limit() {
        let back_off =
            BackOff { first: Duration::from_millis(250), longest: Duration::from_secs(60) };
        let cases =
            [(0, 0), (1, 250), (2, 500), (3, 1000), (8, 32_000), (9, 60_000), (u32::MAX, 60_000)];
        for (failures, millis) in cases {
            assert_eq!(back_off.delay(failures), Duration::from_millis(millis), "{failures}");
        }
    }
}
