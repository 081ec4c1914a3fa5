//! What a command costs: time, processor time, memory.

use std::fs;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// What one run cost.
pub struct Cost {
    /// From start to end.
    pub took: Duration,
    /// Of the process and all that it waited for.
    pub cpu: Duration,
    /// Highest resident memory of the process itself.
    pub peak_kib: u64,
    /// What it printed to its standard error.
    pub said: String,
}

/// Runs `command`, which has to succeed, and looks at its memory until it ends. The kernel's
/// high-water mark only rises, so looking often enough misses nothing but the last instant. Nothing
/// else may be run meanwhile.
pub fn of(command: &mut Command) -> Cost {
    let (started, before) = (Instant::now(), cpu_of_children());
    let mut child =
        command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("it starts");
    let status = format!("/proc/{}/status", child.id());
    let mut peak_kib = 0;
    while child.try_wait().expect("its state").is_none() {
        peak_kib = peak_kib.max(field(&fs::read_to_string(&status).unwrap_or_default(), "VmHWM"));
        std::thread::sleep(Duration::from_millis(1));
    }
    let took = started.elapsed();
    let output = child.wait_with_output().expect("what it said");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{command:?}: {said}");
    Cost { took, cpu: cpu_of_children() - before, peak_kib, said }
}

/// A number of KiB in `/proc/PID/status`; 0 when it is not there.
pub fn field(status: &str, name: &str) -> u64 {
    let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    line.and_then(|l| l.trim().trim_end_matches(" kB").parse().ok()).unwrap_or(0)
}

/// Of those that have ended: proc_pid_stat(5), fields 16 and 17, in hundredths of a second.
fn cpu_of_children() -> Duration {
    let stat = fs::read_to_string("/proc/self/stat").expect("this process");
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or("").split_whitespace().collect();
    let ticks = |at: usize| fields[at].parse::<u64>().expect("a number");
    Duration::from_millis((ticks(13) + ticks(14)) * 10)
}

/// The middle one of some values, and the lowest and the highest.
pub fn median(values: &mut [f64]) -> (f64, f64, f64) {
    values.sort_by(f64::total_cmp);
    (values[values.len() / 2], values[0], values[values.len() - 1])
}
