//! One request, and what is made of its answer.

use super::pace::Speed;
use super::{BUFFER, Base, Client, Event, redirect};
use crate::source::SourceError;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::ops::Range;
use std::path::Path;
use std::time::{Duration, Instant};
use ureq::http::Uri;

/// Most bytes that are skipped when a server sends a file from its beginning although a later part
/// was asked for.
const SKIP: u64 = 8 << 20;

/// Why a try failed. Texts name the file.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    /// There is no such file.
    #[error("{0}: not there")]
    Missing(String),
    /// Something that may pass.
    #[error("{0}")]
    Passing(String),
    /// Something that will not.
    #[error("{0}")]
    Lasting(String),
    /// Not the server's fault.
    #[error(transparent)]
    Sink(io::Error),
    /// Somebody wants it to end.
    #[error("stopped")]
    Stopped,
}

impl From<Failure> for SourceError {
    fn from(failure: Failure) -> SourceError {
        match failure {
            Failure::Sink(error) => SourceError::Sink(error),
            Failure::Missing(_) | Failure::Lasting(_) => SourceError::Refused(failure.to_string()),
            Failure::Passing(_) | Failure::Stopped => SourceError::Unreachable(failure.to_string()),
        }
    }
}

/// What is still missing of a file.
pub(super) struct Want {
    /// The next byte.
    pub(super) at: u64,
    /// The byte after the last; `None`: to the end of the file.
    end: Option<u64>,
    /// Size of the file, where it is known.
    size: Option<u64>,
    /// Most bytes of a file whose size is not known.
    limit: u64,
}

impl Want {
    /// All of a file that has at most `limit` bytes.
    pub(super) fn whole(limit: u64) -> Want {
        Want { at: 0, end: None, size: None, limit }
    }

    /// A part of a file of `size` bytes.
    pub(super) fn part(size: u64, range: Range<u64>) -> Want {
        Want { at: range.start, end: Some(range.end), size: Some(size), limit: size }
    }

    /// Whether a file of that size can be the one.
    fn check_size(&self, size: u64) -> Result<(), String> {
        match self.size {
            Some(expected) if expected != size => {
                Err(format!("the server says it has {size} bytes, and it has to have {expected}"))
            }
            None if size > self.limit => {
                Err(format!("{size} bytes, more than the {} that are allowed", self.limit))
            }
            _ => Ok(()),
        }
    }
}

/// An answer that carries bytes.
struct Answer {
    body: Box<dyn Read>,
    /// Position of its first byte in the file.
    start: u64,
    /// Position after its last one, where it says so.
    end: Option<u64>,
}

impl Client {
    /// Fetches as much as one request yields. `want.at` says how far it came, also on failure.
    pub(super) fn transfer(
        &mut self,
        file: &Base,
        want: &mut Want,
        time: Duration,
        sink: &mut dyn FnMut(&[u8]) -> io::Result<()>,
    ) -> Result<(), Failure> {
        let lasting = |why: &str| Failure::Lasting(format!("{file}: {why}"));
        let passing = |why: &str| Failure::Passing(format!("{file}: {why}"));
        let start = Instant::now();
        let excused_before = self.excused;
        let mut answer = self.open(file, want, time)?;
        let mut skip = want.at - answer.start;
        if skip > SKIP {
            return Err(lasting("the server cannot send a part of a file (no byte ranges)"));
        }
        let portion = self.bucket.as_ref().map_or(BUFFER, |bucket| bucket.portion(BUFFER));
        let mut buffer = vec![0; portion];
        let mut speed = Speed::new(self.patience.slowest, self.patience.window);
        loop {
            self.sleep(Duration::ZERO)?;
            let end = want.end.or(answer.end);
            let due = end.map_or(u64::MAX, |end| end - want.at);
            if due == 0 {
                return Ok(());
            }
            let most = portion.min(usize::try_from(due.saturating_add(skip)).unwrap_or(portion));
            let reading = Instant::now();
            let n = match answer.body.read(&mut buffer[..most]) {
                Ok(n) => n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                Err(e) => return Err(passing(&format!("broke off at byte {}: {e}", want.at))),
            };
            let fast = speed.suffices(n as u64, reading.elapsed());
            if n == 0 {
                return match end {
                    None => Ok(()),
                    Some(_) => Err(passing(&format!("broke off at byte {}", want.at))),
                };
            }
            let skipped = skip.min(n as u64);
            skip -= skipped;
            let bytes = &buffer[skipped as usize..n];
            if want.end.is_none() && want.at + bytes.len() as u64 > want.limit {
                return Err(lasting(&format!("more than the {} bytes allowed", want.limit)));
            }
            let began = Instant::now();
            if !bytes.is_empty() {
                sink(bytes).map_err(Failure::Sink)?;
                want.at += bytes.len() as u64;
                self.tell(Event::Received(bytes.len() as u64));
            }
            if let Some(bucket) = &mut self.bucket {
                let wait = bucket.take(n as u64, Instant::now());
                self.sleep(wait)?;
            }
            self.excused += began.elapsed();
            if !fast {
                let slowest = self.patience.slowest;
                return Err(passing(&format!("less than {slowest} bytes a second")));
            }
            let excused = self.excused - excused_before;
            if start.elapsed().saturating_sub(excused) > time {
                return Err(passing(&format!("took too long, at byte {}", want.at)));
            }
        }
    }

    fn open(&self, file: &Base, want: &Want, time: Duration) -> Result<Answer, Failure> {
        match file {
            Base::Folder(path) => open_local(path, want),
            Base::Web(url) => self.request(url, file, want, time),
        }
    }

    fn request(
        &self,
        url: &str,
        file: &Base,
        want: &Want,
        time: Duration,
    ) -> Result<Answer, Failure> {
        let lasting = |why: String| Failure::Lasting(format!("{file}: {why}"));
        let passing = |why: String| Failure::Passing(format!("{file}: {why}"));
        let range = match want.end {
            Some(end) => Some(format!("bytes={}-{}", want.at, end - 1)),
            None => (want.at > 0).then(|| format!("bytes={}-", want.at)),
        };
        let patience = time.min(self.patience.silence);
        let mut url = url.to_owned();
        let mut hops = 0;
        let response = loop {
            let uri: Uri = url.parse().map_err(|_| lasting(format!("`{url}` is not a URL")))?;
            let forwarded = self.forward.as_ref().and_then(|forward| forward.get(&uri));
            let mut request = forwarded.unwrap_or_else(|| self.agent.get(uri));
            if let Some(range) = &range {
                request = request.header("range", range);
            }
            let request = request.config().timeout_recv_response(Some(patience)).build();
            let response = request.call().map_err(|error| match error {
                ureq::Error::Io(error) => passing(error.to_string()),
                error @ ureq::Error::BadUri(_) => lasting(error.to_string()),
                error => passing(error.to_string()),
            })?;
            if !matches!(response.status().as_u16(), 301 | 302 | 303 | 307 | 308) {
                break response;
            }
            let location = response.headers().get("location").and_then(|value| value.to_str().ok());
            let target = location.and_then(|location| redirect::target(&url, location));
            url = target.ok_or_else(|| lasting("a redirect that leads nowhere".to_owned()))?;
            hops += 1;
            if hops > redirect::MOST {
                return Err(lasting("too many redirects".to_owned()));
            }
        };
        let status = response.status();
        let header =
            |name: &str| response.headers().get(name).and_then(|value| value.to_str().ok());
        let (start, end) = match status.as_u16() {
            200 => {
                let length = header("content-length").and_then(|text| text.parse::<u64>().ok());
                if let Some(length) = length {
                    want.check_size(length).map_err(lasting)?;
                }
                (0, length)
            }
            206 => {
                let part = header("content-range").and_then(content_range);
                let Some((start, end, size)) = part else {
                    return Err(lasting("the server does not say which part it sends".to_owned()));
                };
                if let Some(size) = size {
                    want.check_size(size).map_err(lasting)?;
                }
                if start != want.at || want.end.is_some_and(|wanted| end > wanted) {
                    return Err(lasting("the server sends another part than asked for".to_owned()));
                }
                // A part may be shorter than asked for; without an end, nothing says so.
                let whole = want.end.is_some() || size == Some(end);
                if !whole {
                    return Err(lasting("the server sends less than asked for".to_owned()));
                }
                (start, Some(end))
            }
            // Object stores say "forbidden" of what is not there.
            403 | 404 | 410 => return Err(Failure::Missing(file.to_string())),
            408 | 425 | 429 | 500.. => return Err(passing(format!("the server says {status}"))),
            416 => return Err(lasting(format!("the server says it ends before byte {}", want.at))),
            _ => return Err(lasting(format!("the server says {status}"))),
        };
        Ok(Answer { body: Box::new(response.into_body().into_reader()), start, end })
    }
}

fn open_local(path: &Path, want: &Want) -> Result<Answer, Failure> {
    let failed = |e: io::Error| match e.kind() {
        io::ErrorKind::NotFound => Failure::Missing(path.display().to_string()),
        _ => Failure::Lasting(format!("{}: {e}", path.display())),
    };
    let mut file = File::open(path).map_err(failed)?;
    let size = file.metadata().map_err(failed)?.len();
    want.check_size(size).map_err(|why| Failure::Lasting(format!("{}: {why}", path.display())))?;
    file.seek(SeekFrom::Start(want.at)).map_err(failed)?;
    Ok(Answer { body: Box::new(file), start: want.at, end: Some(size) })
}

/// First byte, byte after the last, and size of the file (RFC 9110, section 14.4).
fn content_range(text: &str) -> Option<(u64, u64, Option<u64>)> {
    let (range, size) = text.strip_prefix("bytes ")?.split_once('/')?;
    let (first, last) = range.split_once('-')?;
    let (first, end) = (first.parse().ok()?, last.parse::<u64>().ok()?.checked_add(1)?);
    let size = if size == "*" { None } else { Some(size.parse().ok()?) };
    (first < end && size.is_none_or(|size| end <= size)).then_some((first, end, size))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_ranges() {
        let cases = [
            ("bytes 0-9/100", Some((0, 10, Some(100)))),
            ("bytes 5-5/*", Some((5, 6, None))),
            ("bytes 5-4/100", None),
            ("bytes 0-100/100", None),
            ("bytes */100", None),
            ("bytes 0-18446744073709551615/*", None),
            ("pages 0-1/2", None),
        ];
        for (text, expected) in cases {
            assert_eq!(content_range(text), expected, "{text}");
        }
    }
}
