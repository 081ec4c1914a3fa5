//! The updater's socket: one JSON request a line in, one JSON response a line out.

use contract::update_status::{Request, Response};
use std::fs;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

/// Most bytes of a request.
const MAX_REQUEST: u64 = 64 << 10;
/// Most bytes of a response: a history that is full of console lines.
const MAX_RESPONSE: u64 = 16 << 20;
/// Who connects and says nothing is not listened to for longer.
const PATIENCE: Duration = Duration::from_secs(10);
/// Most connections at once.
const MOST: usize = 8;

/// Listens at `path`, for root alone.
pub fn listen(path: &Path) -> io::Result<UnixListener> {
    match fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    let listener = UnixListener::bind(path)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

/// Answers until the process ends.
pub fn serve(listener: &UnixListener, answer: &(dyn Fn(&Request) -> Response + Sync)) {
    let open = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for stream in listener.incoming() {
            let Ok(stream) = stream else {
                // No file descriptors left, perhaps: not a reason to spin.
                std::thread::sleep(Duration::from_millis(100));
                continue;
            };
            if open.fetch_add(1, Ordering::SeqCst) >= MOST {
                open.fetch_sub(1, Ordering::SeqCst);
                continue;
            }
            let open = &open;
            scope.spawn(move || {
                // Who has gone away needs no answer.
                let _ = converse(stream, answer);
                open.fetch_sub(1, Ordering::SeqCst);
            });
        }
    });
}

fn converse(stream: UnixStream, answer: &dyn Fn(&Request) -> Response) -> io::Result<()> {
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let mut line = String::new();
    BufReader::new((&stream).take(MAX_REQUEST)).read_line(&mut line)?;
    let response = match serde_json::from_str(&line) {
        Ok(request) => answer(&request),
        Err(e) => Response::Failed { why: format!("the request is not one: {e}") },
    };
    write_line(&stream, &response)
}

/// Asks the agent at `path` and waits for its answer, however long the work takes.
pub fn ask(path: &Path, request: &Request) -> io::Result<Response> {
    let stream = UnixStream::connect(path)?;
    write_line(&stream, request)?;
    let mut line = String::new();
    BufReader::new((&stream).take(MAX_RESPONSE)).read_line(&mut line)?;
    if line.is_empty() {
        return Err(io::Error::new(
            io::ErrorKind::UnexpectedEof,
            "it ended the connection without an answer",
        ));
    }
    Ok(serde_json::from_str(&line)?)
}

fn write_line(mut stream: &UnixStream, value: &impl serde::Serialize) -> io::Result<()> {
    let mut line = serde_json::to_vec(value)?;
    line.push(b'\n');
    stream.write_all(&line)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn questions_are_answered_and_nonsense_is_named() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("socket");
        fs::write(&path, "left over").expect("written");
        let listener = listen(&path).expect("listening");
        assert_eq!(fs::metadata(&path).expect("there").permissions().mode() & 0o777, 0o600);
        std::thread::spawn(move || {
            serve(&listener, &|request| Response::Done { text: format!("{request:?}") });
        });
        let answer = ask(&path, &Request::Unpin).expect("an answer");
        assert_eq!(answer, Response::Done { text: "Unpin".to_owned() });
        let mut stream = UnixStream::connect(&path).expect("connected");
        stream.write_all(b"{\"command\":\"reboot\"}\n").expect("sent");
        let mut text = String::new();
        stream.read_to_string(&mut text).expect("answered");
        assert!(text.contains("the request is not one: unknown variant `reboot`"), "{text}");
    }
}
