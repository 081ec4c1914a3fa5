//! Lines on the console that people and programs wait for.

use crate::layout::Slot;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// Everything that was asked of the host runs.
///
/// `berth: ready slot=a version=1.2.3 runtime=docker workloads=2/2 boot=4.21s`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ready {
    /// The slot that runs; `None` (`-` in the line) when the image was started without the picker.
    pub slot: Option<Slot>,
    /// Release version.
    pub version: String,
    /// `docker` or `containerd`.
    pub runtime: String,
    /// Workloads that run and, where they have a health check, are healthy.
    pub workloads_up: usize,
    /// Workloads that the host configuration declares.
    pub workloads: usize,
    /// Time since the kernel started, shown in hundredths of a second.
    pub boot: Duration,
}

const PREFIX: &str = "berth: ready ";

impl fmt::Display for Ready {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{PREFIX}slot={} version={} runtime={} workloads={}/{} boot={:.2}s",
            self.slot.map_or("-", Slot::name),
            self.version,
            self.runtime,
            self.workloads_up,
            self.workloads,
            self.boot.as_secs_f64()
        )
    }
}

/// A line is not a [`Ready`] line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a `berth: ready` line")]
pub struct NotReady;

impl FromStr for Ready {
    type Err = NotReady;

    /// Finds the line in console output: whatever stands before `berth: ready` is skipped.
    fn from_str(line: &str) -> Result<Ready, NotReady> {
        let at = line.find(PREFIX).ok_or(NotReady)?;
        let field = |key: &str| {
            line[at + PREFIX.len()..]
                .split_whitespace()
                .find_map(|word| word.strip_prefix(key)?.strip_prefix('='))
                .ok_or(NotReady)
        };
        let (up, all) = field("workloads")?.split_once('/').ok_or(NotReady)?;
        let boot = field("boot")?.strip_suffix('s').ok_or(NotReady)?;
        let boot = boot.parse().map_err(|_| NotReady)?;
        Ok(Ready {
            slot: Slot::from_name(field("slot")?),
            version: field("version")?.to_owned(),
            runtime: field("runtime")?.to_owned(),
            workloads_up: up.parse().map_err(|_| NotReady)?,
            workloads: all.parse().map_err(|_| NotReady)?,
            boot: Duration::try_from_secs_f64(boot).map_err(|_| NotReady)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ready_line_round_trips() {
        let line = "berth: ready slot=a version=1.2.3 runtime=docker workloads=2/2 boot=4.21s";
        let ready: Ready = line.parse().expect("a ready line");
        assert_eq!(ready.to_string(), line);
        assert_eq!(format!("[  4.2] {line}\r").parse(), Ok(ready));
        assert_eq!("berth: ready slot=a".parse::<Ready>(), Err(NotReady));
    }
}
