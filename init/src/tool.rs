//! Running a program of the image to its end, within a bound.

use crate::error::{Error, On};
use crate::{log, watchdog};
use std::fs::{self, File};
use std::io::Read;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// Programs are looked at this often.
const LOOK: Duration = Duration::from_millis(10);
/// How often a person is told that something still goes on.
const REMIND: Duration = Duration::from_secs(15);
/// Most bytes of output that are read.
const MOST_OUTPUT: u64 = 16 << 10;

/// How a program ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finished {
    /// Exit status; `None` when a signal ended it.
    pub code: Option<i32>,
    /// What it printed, cut.
    pub output: String,
}

/// Runs `path` with `arguments`. It is killed after `bound`, which is an error. Its output is
/// kept below `/run` while it runs, so that it cannot block on a pipe that nobody reads.
pub fn run(path: &str, arguments: &[&str], bound: Duration) -> Result<Finished, Error> {
    let name = path.rsplit('/').next().unwrap_or(path);
    let log_path = format!("{}/{name}.log", crate::handover::RUN_DIR);
    let output = File::create(&log_path).on("make", &log_path)?;
    let errors = output.try_clone().on("open", &log_path)?;
    let start = Instant::now();
    let mut child = Command::new(path)
        .args(arguments)
        .env_clear()
        .stdin(Stdio::null())
        .stdout(output)
        .stderr(errors)
        .spawn()
        .on("start", path)?;
    let mut remind = REMIND;
    let status = loop {
        watchdog::alive();
        if let Some(status) = child.try_wait().on("wait for", path)? {
            break status;
        }
        let elapsed = start.elapsed();
        if elapsed > bound {
            // One that ended meanwhile needs no killing, and one that hangs in the kernel dies later.
            let _ = child.kill();
            return Err(Error::Tool {
                tool: name.to_owned(),
                problem: format!("did not end within {} s", bound.as_secs()),
            });
        }
        if elapsed > remind {
            log::line(&format!("{name} still runs after {} s", elapsed.as_secs()));
            remind += REMIND;
        }
        thread::sleep(LOOK);
    };
    let mut output = Vec::new();
    File::open(&log_path)
        .and_then(|file| file.take(MOST_OUTPUT).read_to_end(&mut output))
        .on("read", &log_path)?;
    // Only memory is lost when it stays.
    let _ = fs::remove_file(&log_path);
    Ok(Finished { code: status.code(), output: String::from_utf8_lossy(&output).into_owned() })
}

impl Finished {
    /// The last line that it printed: programs sum up there.
    pub fn last_line(&self) -> &str {
        self.output.lines().rev().map(str::trim).find(|line| !line.is_empty()).unwrap_or("")
    }

    /// The first line that it printed, but for its own name and version: programs say there what
    /// went wrong.
    pub fn first_line(&self) -> &str {
        let banner = |line: &str| {
            let mut words = line.split(' ');
            words.nth(1).is_some_and(|word| word.starts_with(|c: char| c.is_ascii_digit()))
        };
        let mut lines = self.output.lines().map(str::trim);
        lines.find(|line| !line.is_empty() && !banner(line)).unwrap_or("")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lines_that_tell_are_found() {
        let output = "e2fsck 1.47.2 (1-Jan-2025)\n\nBad magic number\nmore\n\ndata: done\n \n";
        let finished = Finished { code: Some(8), output: output.to_owned() };
        assert_eq!(finished.first_line(), "Bad magic number");
        assert_eq!(finished.last_line(), "data: done");
        let silent = Finished { code: None, output: String::new() };
        assert_eq!((silent.first_line(), silent.last_line()), ("", ""));
    }
}
