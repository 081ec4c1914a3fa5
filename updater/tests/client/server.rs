//! A web server on the loopback interface that misbehaves on demand.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// How the server fails whoever asks for a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(dead_code, reason = "no test uses all of them")]
pub enum Fault {
    /// Sends that many bytes of a body and hangs up.
    Cut(usize),
    /// Hangs up in the middle of the body, the first that many times.
    CutTimes(u32),
    /// Announces another size than the file has.
    Length(u64),
    /// Sends for ever.
    Endless,
    /// Sends whole files, whatever part is asked for.
    NoRanges,
    /// Sends another part than asked for.
    OtherRange,
    /// Sends a part of a file of another size.
    RangeOfOther(u64),
    /// This status, the first that many times.
    Status(u16, u32),
    /// Takes the request, and says nothing.
    Silent,
    /// Answers when this fault is healed, not before.
    Hold,
    /// A byte now and then.
    Trickle,
    /// Sends the client elsewhere and elsewhere.
    Loop,
    /// Sends the client to this port.
    Elsewhere(u16),
}

#[derive(Default)]
struct State {
    files: BTreeMap<String, Vec<u8>>,
    /// What fails, by a part of the path.
    faults: Vec<(String, Fault)>,
    /// Paths and ranges that were asked for.
    log: Vec<(String, Option<String>)>,
    sent: u64,
    stopped: bool,
}

/// Serves until it is dropped.
pub struct Server {
    address: SocketAddr,
    state: Arc<Mutex<State>>,
}

#[allow(dead_code, reason = "no test uses all of them")]
impl Server {
    /// On a free port.
    pub fn start() -> Server {
        Server::start_at(SocketAddr::from(([127, 0, 0, 1], 0)))
    }

    /// On a port that may have served before.
    pub fn start_at(address: SocketAddr) -> Server {
        let listener = TcpListener::bind(address).expect("a port");
        let address = listener.local_addr().expect("its address");
        let state = Arc::new(Mutex::new(State::default()));
        let shared = Arc::clone(&state);
        std::thread::spawn(move || {
            for connection in listener.incoming() {
                let (Ok(connection), false) = (connection, lock(&shared).stopped) else { return };
                let shared = Arc::clone(&shared);
                // A client that hangs up is no failure of the server.
                std::thread::spawn(move || drop(serve(connection, &shared)));
            }
        });
        Server { address, state }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// `http://HOST:PORT`.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The port.
    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// Serves a file.
    pub fn put(&self, path: &str, content: impl Into<Vec<u8>>) {
        lock(&self.state).files.insert(path.to_owned(), content.into());
    }

    /// All that is served.
    pub fn files(&self) -> BTreeMap<String, Vec<u8>> {
        lock(&self.state).files.clone()
    }

    /// Serves these instead.
    pub fn set_files(&self, files: BTreeMap<String, Vec<u8>>) {
        lock(&self.state).files = files;
    }

    /// No longer serves a file.
    pub fn remove(&self, path: &str) {
        lock(&self.state).files.remove(path).expect("a file that is there");
    }

    /// Fails from now on whoever asks for a path with this part.
    pub fn fail(&self, part: &str, fault: Fault) {
        lock(&self.state).faults.push((part.to_owned(), fault));
    }

    /// Nothing fails any more.
    pub fn heal(&self) {
        lock(&self.state).faults.clear();
    }

    /// Bytes of files that were sent so far.
    pub fn sent(&self) -> u64 {
        lock(&self.state).sent
    }

    /// Bytes of a file; 0 when there is none.
    pub fn size(&self, path: &str) -> u64 {
        lock(&self.state).files.get(path).map_or(0, |content| content.len() as u64)
    }

    /// Paths and ranges that were asked for.
    pub fn requests(&self) -> Vec<(String, Option<String>)> {
        lock(&self.state).log.clone()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        lock(&self.state).stopped = true;
        drop(TcpStream::connect(self.address));
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

fn serve(mut stream: TcpStream, state: &Mutex<State>) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?.take(16 << 10));
    let (mut path, mut range) = (String::new(), None);
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let line = line.trim_end();
        if let Some(rest) = line.strip_prefix("GET /") {
            path = rest.split(' ').next().unwrap_or_default().to_owned();
        } else if let Some((name, value)) = line.split_once(": ")
            && name.eq_ignore_ascii_case("range")
        {
            range = Some(value.to_owned());
        } else if line.is_empty() {
            break;
        }
    }
    let (file, fault) = {
        let mut state = lock(state);
        state.log.push((path.clone(), range.clone()));
        let fault = state.faults.iter_mut().find(|(part, _)| path.contains(part.as_str()));
        let fault = fault.and_then(|(_, fault)| fault.take());
        (state.files.get(&path).cloned(), fault)
    };
    if fault == Some(Fault::Silent) {
        // Until the client has had enough.
        reader.read_to_end(&mut Vec::new())?;
        return Ok(());
    }
    while fault == Some(Fault::Hold) && lock(state).faults.iter().any(|(_, f)| *f == Fault::Hold) {
        std::thread::sleep(Duration::from_millis(10));
    }
    if let Some(Fault::Status(status, _)) = fault {
        return write!(stream, "HTTP/1.1 {status} Bad\r\ncontent-length: 0\r\n\r\n");
    }
    if fault == Some(Fault::Loop) {
        return write!(stream, "HTTP/1.1 302 Found\r\nlocation: /{path}x\r\n\r\n");
    }
    if let Some(Fault::Elsewhere(port)) = fault {
        return write!(
            stream,
            "HTTP/1.1 307 Elsewhere\r\nlocation: http://127.0.0.1:{port}/{path}\r\n\
             content-length: 0\r\n\r\n"
        );
    }
    if fault == Some(Fault::Endless) {
        write!(stream, "HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n")?;
        loop {
            stream.write_all(&[b' '; 8192])?;
        }
    }
    let Some(file) = file else {
        return write!(stream, "HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n");
    };
    let size = file.len();
    let part = range.filter(|_| fault != Some(Fault::NoRanges)).map(|range| parse(&range, size));
    let body = match part {
        Some(Some((first, last))) => {
            let (shift, total) = match fault {
                Some(Fault::OtherRange) => (1, size as u64),
                Some(Fault::RangeOfOther(total)) => (0, total),
                _ => (0, size as u64),
            };
            write!(
                stream,
                "HTTP/1.1 206 Partial\r\nconnection: close\r\ncontent-length: {}\r\n\
                 content-range: bytes {}-{}/{total}\r\n\r\n",
                last + 1 - first,
                first + shift,
                last + shift,
            )?;
            &file[first..=last]
        }
        Some(None) => {
            return write!(stream, "HTTP/1.1 416 Range\r\ncontent-length: 0\r\n\r\n");
        }
        None => {
            let length = if let Some(Fault::Length(n)) = fault { n } else { size as u64 };
            write!(
                stream,
                "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n"
            )?;
            &file[..]
        }
    };
    match fault {
        Some(Fault::Cut(n)) => stream.write_all(&body[..n.min(body.len())]),
        Some(Fault::CutTimes(_)) => stream.write_all(&body[..body.len() / 2]),
        Some(Fault::Trickle) => body.iter().try_for_each(|byte| {
            std::thread::sleep(Duration::from_millis(10));
            stream.write_all(std::slice::from_ref(byte))
        }),
        _ => body.chunks(16 << 10).try_for_each(|part| {
            stream.write_all(part)?;
            lock(state).sent += part.len() as u64;
            Ok(())
        }),
    }
}

impl Fault {
    /// Itself, as long as it lasts.
    fn take(&mut self) -> Option<Fault> {
        match self {
            Fault::Status(_, times) | Fault::CutTimes(times) => {
                *times = times.checked_sub(1)?;
            }
            _ => {}
        }
        Some(*self)
    }
}

fn parse(range: &str, size: usize) -> Option<(usize, usize)> {
    let (first, last) = range.strip_prefix("bytes=")?.split_once('-')?;
    let first = first.parse().ok()?;
    let last = last.parse().unwrap_or(usize::MAX).min(size.checked_sub(1)?);
    (first <= last).then_some((first, last))
}
