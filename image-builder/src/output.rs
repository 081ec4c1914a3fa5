//! What a person sees while something takes long: a bar on a terminal, lines elsewhere. Always on
//! standard error.

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::io::IsTerminal;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// How far a piece of work is, counted in bytes. Shared between threads.
#[derive(Debug)]
pub struct Progress {
    label: String,
    total: u64,
    done: AtomicU64,
    /// Absent where lines are printed.
    bar: Option<ProgressBar>,
}

impl Progress {
    /// Starts: `label` says what is done to what (`download 3 packages`).
    pub fn start(label: impl Into<String>, total: u64) -> Progress {
        let label = label.into();
        let bar = std::io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::stderr());
            let template = "{msg} [{bar:30}] {bytes} of {total_bytes}, {bytes_per_sec}, {eta} left";
            if let Ok(style) = ProgressStyle::with_template(template) {
                bar.set_style(style.progress_chars("=> "));
            }
            bar.enable_steady_tick(Duration::from_millis(200));
            bar.with_message(label.clone())
        });
        if bar.is_none() {
            eprintln!("{label}: {}", bytes(total));
        }
        Progress { label, total, done: AtomicU64::new(0), bar }
    }

    /// So many more bytes are done.
    pub fn add(&self, count: u64) {
        let before = self.done.fetch_add(count, Ordering::Relaxed);
        match &self.bar {
            Some(bar) => bar.inc(count),
            None => {
                let quarter = |done: u64| (done * 4).checked_div(self.total).unwrap_or(4);
                let now = quarter(before + count);
                if now > quarter(before) && now < 4 {
                    eprintln!("{}: {}%", self.label, now * 25);
                }
            }
        }
    }

    /// So many bytes are done after all not: they have to be fetched again.
    pub fn take_back(&self, count: u64) {
        self.done.fetch_sub(count, Ordering::Relaxed);
        if let Some(bar) = &self.bar {
            bar.set_position(self.done.load(Ordering::Relaxed));
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

/// A size for people: `12.3 MiB`.
pub fn bytes(count: u64) -> String {
    const UNITS: [&str; 4] = ["KiB", "MiB", "GiB", "TiB"];
    let mut value = count as f64 / 1024.0;
    let mut unit = 0;
    if count < 1024 {
        return format!("{count} bytes");
    }
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    format!("{value:.1} {}", UNITS[unit])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        for (count, text) in [
            (0, "0 bytes"),
            (1023, "1023 bytes"),
            (1024, "1.0 KiB"),
            (1_572_864, "1.5 MiB"),
            (u64::MAX, "16777216.0 TiB"),
        ] {
            assert_eq!(bytes(count), text);
        }
    }
}
