//! QEMU's control socket (QMP), as much of it as a machine needs.

use crate::{Error, Result};
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

/// QEMU answers at once unless it hangs.
const ANSWER: Duration = Duration::from_secs(20);

/// A longer message is none.
const MESSAGE_MAX: u64 = 1 << 20;

/// A connection that has been greeted.
#[derive(Debug)]
pub struct Qmp {
    stream: BufReader<UnixStream>,
}

impl Qmp {
    /// Takes a fresh connection out of its negotiation mode.
    pub fn greet(stream: UnixStream) -> Result<Qmp> {
        let mut qmp = Qmp { stream: BufReader::new(stream) };
        let end = Instant::now() + ANSWER;
        let greeting = qmp.message(end).map_err(failed("greeting"))?;
        if greeting.get("QMP").is_none() {
            return Err(failed("greeting")(format!("unexpected {greeting}")));
        }
        qmp.execute("qmp_capabilities", json!({}))?;
        Ok(qmp)
    }

    /// Runs a command. Events that come before its answer are dropped.
    pub fn execute(&mut self, command: &str, arguments: Value) -> Result<Value> {
        self.exchange(command, arguments).map_err(failed(command))
    }

    fn exchange(&mut self, command: &str, arguments: Value) -> std::result::Result<Value, String> {
        let end = Instant::now() + ANSWER;
        let stream = self.stream.get_mut();
        stream.set_write_timeout(Some(ANSWER)).map_err(|e| e.to_string())?;
        writeln!(stream, "{}", json!({ "execute": command, "arguments": arguments }))
            .map_err(|e| e.to_string())?;
        loop {
            let mut message = self.message(end)?;
            if let Some(value) = message.get_mut("return") {
                return Ok(value.take());
            }
            if let Some(error) = message.get("error") {
                let text = error.get("desc").and_then(Value::as_str).unwrap_or("refused");
                return Err(text.to_owned());
            }
        }
    }

    fn message(&mut self, end: Instant) -> std::result::Result<Value, String> {
        let left = end.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
        self.stream.get_ref().set_read_timeout(Some(left)).map_err(|e| e.to_string())?;
        let mut line = Vec::new();
        self.stream
            .by_ref()
            .take(MESSAGE_MAX)
            .read_until(b'\n', &mut line)
            .map_err(|e| e.to_string())?;
        if line.is_empty() {
            return Err("QEMU closed its control socket".into());
        }
        serde_json::from_slice(&line).map_err(|e| e.to_string())
    }
}

fn failed(command: &str) -> impl FnOnce(String) -> Error {
    move |message| Error::Control { command: command.to_owned(), message }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Answers one line for each line that comes.
    fn answering(greeting: &'static str, answers: &'static [&'static str]) -> Result<Qmp> {
        let (ours, mut theirs) = UnixStream::pair().expect("a socket pair");
        std::thread::spawn(move || {
            writeln!(theirs, "{greeting}").expect("greet");
            let mut lines = BufReader::new(theirs.try_clone().expect("clone")).lines();
            for answer in answers {
                lines.next();
                writeln!(theirs, "{answer}").expect("answer");
            }
        });
        Qmp::greet(ours)
    }

    const GREETING: &str = r#"{"QMP": {"version": {}, "capabilities": []}}"#;

    #[test]
    fn answers_are_found_behind_events() {
        let event = "{\"event\": \"RESET\", \"data\": {}}\n{\"return\": {\"status\": \"running\"}}";
        let answers: &[&str] = Box::leak(Box::new([r#"{"return": {}}"#, event]));
        let mut qmp = answering(GREETING, answers).expect("greeted");
        let status = qmp.execute("query-status", json!({})).expect("an answer");
        assert_eq!(status["status"], "running");
        let closed = qmp.execute("stop", json!({})).expect_err("closed");
        assert!(closed.to_string().starts_with("QEMU command stop: "), "{closed}");
    }

    #[test]
    fn refusals_say_why() {
        let refusal = r#"{"error": {"class": "CommandNotFound", "desc": "no such command"}}"#;
        let answers: &[&str] = Box::leak(Box::new([r#"{"return": {}}"#, refusal]));
        let mut qmp = answering(GREETING, answers).expect("greeted");
        let error = qmp.execute("x", json!({})).expect_err("refused").to_string();
        assert_eq!(error, "QEMU command x: no such command");
        assert!(answering("{}", &[]).is_err());
        assert!(answering("no json", &[]).is_err());
    }
}
