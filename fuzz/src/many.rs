//! `make fuzz`: a million inputs for each target, or as many as the first argument says; a second
//! one names the only target. Says how long the slowest input took and how much memory there was.

use fuzz::{Mutations, targets};
use std::process::ExitCode;
use std::time::{Duration, Instant};

fn main() -> ExitCode {
    let mut code = ExitCode::SUCCESS;
    let mut arguments = std::env::args().skip(1);
    let count = arguments.next().map_or(1_000_000, |text| text.parse().expect("a number"));
    let only = arguments.next();
    for target in targets().into_iter().filter(|t| only.as_ref().is_none_or(|o| o == t.name)) {
        let mut slowest = Duration::ZERO;
        let mut read = 0;
        for (i, input) in Mutations::new((target.samples)(), 0xbe27).take(count).enumerate() {
            let started = Instant::now();
            if std::panic::catch_unwind(|| (target.run)(&input)).is_err() {
                let path = std::env::temp_dir().join(format!("{}-{i}", target.name));
                std::fs::write(&path, &input).expect("written");
                println!("{}: input {i} is kept in {}", target.name, path.display());
                code = ExitCode::FAILURE;
                break;
            }
            slowest = slowest.max(started.elapsed());
            read += 1;
        }
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap_or_default();
        println!("{:<18} {read} inputs, slowest {slowest:?}, peak {}", target.name, peak.trim());
    }
    code
}
