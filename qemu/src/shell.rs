//! Commands through the debug shell of an image that has one (`[debug] shell = true`).
//!
//! A shell sits on the guest's second serial line, with echo, prompts and line editing as on a
//! terminal. Each command is therefore framed by two marks that the *typed* line does not contain
//! (it has them in two pieces), and is encoded so that no character of it means something to the
//! line editor.

use std::fmt::Write as _;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

/// What a command gave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Output {
    /// Its exit status.
    pub status: i32,
    /// What it wrote to standard output and standard error, in order, with `\n` line ends.
    pub stdout: String,
}

/// Longer output is refused.
const OUTPUT_MAX: usize = 16 << 20;

/// Busybox' line editor takes 1023 characters a line.
const PIECE_MAX: usize = 600;

/// How long to wait for the shell's answer before asking again: it may not be there yet.
const ASK_AGAIN: Duration = Duration::from_secs(2);

/// The line to the shell.
#[derive(Debug)]
pub struct Shell {
    stream: UnixStream,
    serial: u32,
    /// A command may still run.
    dirty: bool,
}

/// Why there is no output.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// Not in time; what came until then.
    Late(String),
    /// The line was closed: the machine ended.
    Closed,
    /// More than 16 MiB.
    TooMuch,
}

impl Shell {
    /// Over a connection to the serial line.
    pub fn new(stream: UnixStream) -> Shell {
        Shell { stream, serial: 0, dirty: false }
    }

    /// Runs `command` in a subshell: `cd` and variables do not last.
    pub fn run(&mut self, command: &str, within: Duration) -> Result<Output, Failure> {
        let end = Instant::now() + within;
        self.wake(end)?;
        self.dirty = true;
        let pieces = encode(command);
        let (last, first) = pieces.split_last().expect("at least one piece");
        self.exchange("BERTH_C=", end)?;
        for piece in first {
            self.exchange(&format!("BERTH_C=$BERTH_C'{piece}'"), end)?;
        }
        let output =
            self.exchange(&format!("( eval \"$(printf %b \"$BERTH_C\"'{last}')\" )"), end)?;
        self.dirty = false;
        Ok(output)
    }

    /// Waits until the shell answers at all. Bytes that were sent before it listened are lost.
    fn wake(&mut self, end: Instant) -> Result<(), Failure> {
        loop {
            // Ctrl-C ends what a command that came too late may have left running.
            let line_start = if self.dirty { "\x03\n" } else { "\n" };
            self.serial += 1;
            let mark = Mark(self.serial);
            self.send(&format!("{line_start}{}\n", mark.typed_begin()), end)?;
            let ask_again = end.min(Instant::now() + ASK_AGAIN);
            match self.read_until(&mark.begin(), ask_again) {
                Ok(_) => return Ok(()),
                Err(Failure::Late(_)) if Instant::now() < end => {}
                Err(failure) => return Err(failure),
            }
        }
    }

    /// Runs one line that the editor takes as it is.
    fn exchange(&mut self, line: &str, end: Instant) -> Result<Output, Failure> {
        self.serial += 1;
        let mark = Mark(self.serial);
        let typed =
            format!("{}; {line} 2>&1 </dev/null; {}\n", mark.typed_begin(), mark.typed_end());
        self.send(&typed, end)?;
        self.read_until(&mark.begin(), end)?;
        let mut text = self.read_until(&mark.end(), end)?;
        let status = self.read_until("\n", end)?;
        text.retain(|c| c != '\r');
        // The end mark stands on a line of its own.
        if text.ends_with('\n') {
            text.pop();
        }
        let status = status.trim().parse().map_err(|_| Failure::Late(status))?;
        Ok(Output { status, stdout: text })
    }

    fn send(&mut self, text: &str, end: Instant) -> Result<(), Failure> {
        let left = end.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
        let sent = self
            .stream
            .set_write_timeout(Some(left))
            .and_then(|()| self.stream.write_all(text.as_bytes()));
        sent.map_err(|error| match error.kind() {
            std::io::ErrorKind::WouldBlock => Failure::Late(String::new()),
            _ => Failure::Closed,
        })
    }

    /// What comes before `mark`; the mark itself is taken too, and nothing behind it.
    fn read_until(&mut self, mark: &str, end: Instant) -> Result<String, Failure> {
        let mut bytes = Vec::new();
        let mut byte = [0];
        loop {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(Failure::Late(String::from_utf8_lossy(&bytes).into_owned()));
            }
            self.stream.set_read_timeout(Some(left)).map_err(|_| Failure::Closed)?;
            match self.stream.read(&mut byte) {
                Ok(0) => return Err(Failure::Closed),
                Ok(_) => bytes.push(byte[0]),
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => continue,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
                Err(_) => return Err(Failure::Closed),
            }
            if bytes.ends_with(mark.as_bytes()) {
                bytes.truncate(bytes.len() - mark.len());
                return Ok(String::from_utf8_lossy(&bytes).into_owned());
            }
            if bytes.len() > OUTPUT_MAX {
                return Err(Failure::TooMuch);
            }
        }
    }
}

/// The two marks around a command's output, and how they are typed.
#[derive(Clone, Copy)]
struct Mark(u32);

impl Mark {
    fn begin(self) -> String {
        format!("BERTH-BEGIN-{}\r\n", self.0)
    }
    fn typed_begin(self) -> String {
        format!("echo BERTH-\"\"BEGIN-{}", self.0)
    }
    fn end(self) -> String {
        format!("BERTH-END-{}:", self.0)
    }
    fn typed_end(self) -> String {
        // `$?` first: it is that of the command.
        format!("printf '\\nBERTH-%s-{}:%d\\n' END $?", self.0)
    }
}

/// The command for `printf %b`, in pieces that fit between single quotes on a line.
fn encode(command: &str) -> Vec<String> {
    let mut pieces = vec![String::new()];
    for byte in command.bytes() {
        let mut code = String::new();
        match byte {
            b'\'' | b'\\' | b'!' => write!(code, "\\0{byte:03o}"),
            b' '..=b'~' => write!(code, "{}", char::from(byte)),
            _ => write!(code, "\\0{byte:03o}"),
        }
        .expect("a string takes everything");
        let last = pieces.last_mut().expect("never empty");
        match last.len() + code.len() > PIECE_MAX {
            true => pieces.push(code),
            false => last.push_str(&code),
        }
    }
    pieces
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Command, Stdio};

    const MINUTE: Duration = Duration::from_secs(60);

    /// A real shell behind a line that echoes what is typed and ends lines as a terminal does.
    fn shell_on_a_terminal() -> Shell {
        let (ours, theirs) = UnixStream::pair().expect("a socket pair");
        let mut child = Command::new("sh")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("sh");
        let mut input = child.stdin.take().expect("piped");
        let mut output = child.stdout.take().expect("piped");
        let mut screen = theirs.try_clone().expect("clone");
        let mut keys = theirs;
        std::thread::spawn(move || {
            let mut echo = screen.try_clone().expect("clone");
            std::thread::spawn(move || {
                let mut byte = [0];
                while keys.read_exact(&mut byte).is_ok() {
                    echo.write_all(if byte == *b"\n" { b"\r\n# " } else { &byte }).expect("echo");
                    input.write_all(&byte).expect("sh reads");
                }
            });
            let mut byte = [0];
            while output.read_exact(&mut byte).is_ok() {
                let shown: &[u8] = if byte == *b"\n" { b"\r\n" } else { &byte };
                if screen.write_all(shown).is_err() {
                    break;
                }
            }
            crate::process::kill(&mut child);
        });
        Shell::new(ours)
    }

    #[test]
    fn commands_run_and_give_output_and_status() {
        let mut shell = shell_on_a_terminal();
        let long = format!("printf %s '{}' | wc -c", "x".repeat(3000));
        let cases: [(&str, i32, &str); 10] = [
            ("true", 0, ""),
            ("exit 7", 7, ""),
            ("echo out; echo err >&2; false", 1, "out\nerr\n"),
            ("printf 'no newline'", 0, "no newline"),
            ("printf 'two\\n\\n'", 0, "two\n\n"),
            ("for i in 1 2; do\n\techo \"line $i\"\ndone", 0, "line 1\nline 2\n"),
            ("echo 'it'\"'\"'s \\ % ! é'", 0, "it's \\ % ! é\n"),
            ("echo BERTH-\"\"END-1:0 BERTH-\"\"BEGIN-2", 0, "BERTH-END-1:0 BERTH-BEGIN-2\n"),
            ("cat", 0, ""),
            (&long, 0, "3000\n"),
        ];
        for (command, status, stdout) in cases {
            let output = shell.run(command, MINUTE).expect(command);
            assert_eq!((output.status, output.stdout.as_str()), (status, stdout), "{command}");
        }
    }

    #[test]
    fn a_command_that_is_late_does_not_spoil_the_next() {
        let mut shell = shell_on_a_terminal();
        shell.run("true", MINUTE).expect("the shell answers");
        let late = shell.run("echo begun; sleep 1; echo late", Duration::from_millis(300));
        assert!(matches!(late, Err(Failure::Late(_))), "{late:?}");
        let output = shell.run("echo next", MINUTE).expect("the shell goes on");
        assert_eq!(output.stdout, "next\n");
    }

    #[test]
    fn a_closed_line_is_told() {
        let (ours, theirs) = UnixStream::pair().expect("a socket pair");
        drop(theirs);
        assert_eq!(Shell::new(ours).run("true", MINUTE), Err(Failure::Closed));
    }

    #[test]
    fn typed_lines_do_not_hold_their_marks() {
        let mark = Mark(12);
        let typed = mark.typed_begin() + &mark.typed_end();
        assert!(!typed.contains(mark.begin().trim_end()) && !typed.contains(&mark.end()));
        assert_eq!(encode("a'\n"), ["a\\0047\\0012"]);
        assert!(encode(&"é".repeat(2000)).iter().all(|piece| piece.len() <= PIECE_MAX));
    }
}
