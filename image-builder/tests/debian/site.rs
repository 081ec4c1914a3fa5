//! A web server on the loopback interface that serves files from memory, and stumbles on demand.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

/// What it serves and how.
#[derive(Default)]
pub struct Content {
    /// By path, with the leading slash.
    pub files: BTreeMap<String, Vec<u8>>,
    /// For each path, after how many bytes of the body the next answers are cut.
    pub cuts: BTreeMap<String, Vec<usize>>,
    /// Whether it knows `Range`.
    pub ranges: bool,
    /// The requests so far: path, then what of `Range` and `If-None-Match` came with it.
    pub log: Vec<String>,
}

/// The server. It ends with the process.
#[derive(Clone)]
pub struct Site {
    content: Arc<Mutex<Content>>,
    /// Its address, without a slash at the end.
    pub url: String,
}

impl Site {
    pub fn start(files: BTreeMap<String, Vec<u8>>) -> Site {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let content = Content { files, ranges: true, ..Content::default() };
        let site = Site { content: Arc::new(Mutex::new(content)), url };
        let serving = site.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let site = serving.clone();
                std::thread::spawn(move || site.serve(stream));
            }
        });
        site
    }

    pub fn change<T>(&self, change: impl FnOnce(&mut Content) -> T) -> T {
        change(&mut self.content.lock().unwrap())
    }

    /// The requests since the last call.
    pub fn requests(&self) -> Vec<String> {
        self.change(|content| std::mem::take(&mut content.log))
    }

    /// A client that goes away is nobody's fault.
    fn serve(&self, mut stream: TcpStream) -> Option<()> {
        let mut lines = BufReader::new(stream.try_clone().ok()?).lines();
        let path = lines.next()?.ok()?.split(' ').nth(1)?.to_owned();
        let mut headers = BTreeMap::new();
        for line in lines {
            let line = line.ok()?;
            let Some((name, value)) = line.split_once(": ") else { break };
            headers.insert(name.to_ascii_lowercase(), value.to_owned());
        }
        let (head, body, cut) = self.change(|content| {
            let (range, known) = (headers.get("range"), headers.get("if-none-match"));
            let mut entry = path.clone();
            for value in [range, known].into_iter().flatten() {
                entry = format!("{entry} {value}");
            }
            content.log.push(entry);
            let Some(file) = content.files.get(&path) else {
                return ("404 Not Found".to_owned(), Vec::new(), None);
            };
            let tag = format!(
                "\"{}\"",
                file.iter().fold(7u64, |h, b| h.wrapping_mul(31) + u64::from(*b))
            );
            if known == Some(&tag) {
                return ("304 Not Modified".to_owned(), Vec::new(), None);
            }
            let cuts = content.cuts.entry(path).or_default();
            let cut = (!cuts.is_empty()).then(|| cuts.remove(0));
            let start = range.filter(|_| content.ranges).and_then(|range| {
                range.strip_prefix("bytes=")?.strip_suffix('-')?.parse::<usize>().ok()
            });
            match start {
                None => (format!("200 OK\r\nETag: {tag}"), file.clone(), cut),
                Some(start) => {
                    let (end, len) = (file.len() - 1, file.len());
                    let head = format!("206 Partial\r\nContent-Range: bytes {start}-{end}/{len}");
                    (head, file[start..].to_vec(), cut)
                }
            }
        });
        let len = body.len();
        let head = format!("HTTP/1.1 {head}\r\nContent-Length: {len}\r\nConnection: close\r\n\r\n");
        stream.write_all(head.as_bytes()).ok()?;
        stream.write_all(&body[..cut.unwrap_or(len).min(len)]).ok()
    }
}
