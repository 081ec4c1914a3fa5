//! Downloads into the cache: resumed when cut, tried again when a server stumbles, hashed as they
//! come.

use crate::cache::{Cache, Digest, Pending};
use crate::output::Progress;
use crate::{Error, Result};
use contract::text::without_credentials;
use sha2::{Digest as _, Sha256};
use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Waits between the tries at one address.
const PAUSES: [Duration; 3] =
    [Duration::from_millis(250), Duration::from_millis(500), Duration::from_secs(1)];

/// A server that sends nothing for this long counts as gone.
const SILENCE: Duration = Duration::from_secs(30);

const HINT_DIFFERENT: &str =
    "run again: the mirror may be in the middle of an update; else try another --mirror";
const HINT_MISSING: &str = "run again: the mirror has changed meanwhile; \
    with --locked, the version may be gone: run `berth lock`";

/// How a server recognizes what we have.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Validators {
    /// `ETag` of the answer.
    pub etag: Option<String>,
    /// `Last-Modified` of the answer.
    pub modified: Option<String>,
}

/// What a server has at an address.
#[derive(Debug)]
pub enum Answer {
    /// What the validators stand for.
    Unchanged,
    /// This.
    New(Vec<u8>, Validators),
    /// Nothing.
    Missing,
}

/// Something to download whose content is known beforehand.
#[derive(Clone, Debug)]
pub struct Download {
    /// What it is, for errors.
    pub what: String,
    /// Where it can be had, in the order to try.
    pub urls: Vec<String>,
    /// Its SHA-256.
    pub sha256: Digest,
    /// Its bytes.
    pub size: u64,
}

/// Keeps connections open between downloads. The usual variables name a proxy.
#[derive(Debug)]
pub struct Client {
    agent: ureq::Agent,
    stopped: AtomicBool,
}

/// Why a try failed.
enum Failure {
    /// The server does not have it: no use in asking again.
    Missing,
    /// Something that may pass.
    Passing(Box<dyn std::error::Error + Send + Sync>),
    /// Something that will not.
    Lasting(Box<dyn std::error::Error + Send + Sync>),
    /// Not the server's fault.
    Local(Error),
}

impl Default for Client {
    fn default() -> Client {
        Client::new()
    }
}

impl Client {
    /// Without connections yet.
    pub fn new() -> Client {
        let config = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .timeout_resolve(Some(SILENCE))
            .timeout_connect(Some(Duration::from_secs(10)))
            .timeout_recv_response(Some(SILENCE))
            .timeout_per_read(Some(SILENCE))
            .accept_encoding("identity")
            .user_agent(concat!("berth/", env!("CARGO_PKG_VERSION")))
            .max_idle_connections_per_host(8)
            .build();
        Client { agent: config.new_agent(), stopped: AtomicBool::new(false) }
    }

    /// Makes downloads in other threads end soon, with an error.
    pub fn stop(&self) {
        self.stopped.store(true, Ordering::Relaxed);
    }

    /// Fetches something small whose content is not known beforehand, at most `limit` bytes.
    pub fn get(&self, url: &str, known: &Validators, limit: u64) -> Result<Answer> {
        let mut last = None;
        for pause in std::iter::once(Duration::ZERO).chain(PAUSES) {
            std::thread::sleep(pause);
            match self.try_get(url, known, limit) {
                Ok(answer) => return Ok(answer),
                Err(Failure::Missing) => return Ok(Answer::Missing),
                Err(Failure::Local(e)) => return Err(e),
                Err(Failure::Lasting(e)) => return Err(failed(url, e)),
                Err(Failure::Passing(e)) => last = Some(failed(url, e)),
            }
        }
        Err(last.unwrap_or_else(|| failed(url, "not tried".into())))
    }

    fn try_get(
        &self,
        url: &str,
        known: &Validators,
        limit: u64,
    ) -> std::result::Result<Answer, Failure> {
        let mut headers = Vec::new();
        headers.extend(known.etag.as_ref().map(|tag| ("If-None-Match", tag.clone())));
        headers.extend(known.modified.as_ref().map(|time| ("If-Modified-Since", time.clone())));
        let answer = self.open(url, &headers)?;
        let header =
            |name: &str| answer.headers.iter().find(|(n, _)| n == name).map(|(_, v)| v.clone());
        let validators = Validators { etag: header("etag"), modified: header("last-modified") };
        if answer.status == 304 {
            return Ok(Answer::Unchanged);
        }
        let mut bytes = Vec::new();
        answer
            .body
            .take(limit + 1)
            .read_to_end(&mut bytes)
            .map_err(|e| Failure::Passing(e.into()))?;
        if bytes.len() as u64 > limit {
            return Err(Failure::Lasting(format!("it is longer than {limit} bytes").into()));
        }
        if header("content-length").is_some_and(|len| len.parse() != Ok(bytes.len())) {
            return Err(Failure::Passing("the connection was cut".into()));
        }
        Ok(Answer::New(bytes, validators))
    }

    /// Brings `download` into the cache and says where it lies. What is there already is taken as
    /// it is: whoever reads it checks it.
    pub fn into_cache(
        &self,
        cache: &Cache,
        download: &Download,
        progress: Option<&Progress>,
    ) -> Result<PathBuf> {
        let Some(mut part) = Part::open(cache, download)? else {
            return Ok(cache.blob(&download.sha256));
        };
        let count = |n| progress.inspect(|p| p.add(n));
        count(part.len);
        let mut last = failed("(no address)", "there is no mirror".into());
        'urls: for url in &download.urls {
            let mut pauses = PAUSES.iter();
            loop {
                let resumed = part.len > 0;
                match self.try_download(url, download, &mut part, progress) {
                    Ok(()) if part.digest() == download.sha256 => return part.commit(),
                    Ok(()) => {
                        progress.inspect(|p| p.take_back(part.len));
                        part.reset()?;
                        if resumed {
                            // The first part may be what was wrong.
                            continue;
                        }
                        last = Error::corrupt(format!(
                            "{}: {} is not what the signed index lists",
                            download.what,
                            without_credentials(url)
                        ))
                        .with_hint(HINT_DIFFERENT);
                        continue 'urls;
                    }
                    Err(Failure::Local(e)) => return Err(e),
                    Err(Failure::Missing) => {
                        let what =
                            format!("{}: {} is not there", download.what, without_credentials(url));
                        last = Error::corrupt(what).with_hint(HINT_MISSING);
                        continue 'urls;
                    }
                    Err(Failure::Lasting(e)) => {
                        last = failed(url, e);
                        continue 'urls;
                    }
                    Err(Failure::Passing(e)) => {
                        last = failed(url, e);
                        let Some(pause) = pauses.next() else { continue 'urls };
                        std::thread::sleep(*pause);
                    }
                }
            }
        }
        Err(last)
    }

    fn try_download(
        &self,
        url: &str,
        download: &Download,
        part: &mut Part,
        progress: Option<&Progress>,
    ) -> std::result::Result<(), Failure> {
        part.rewind().map_err(Failure::Local)?;
        if part.len == download.size {
            return Ok(());
        }
        let range = (part.len > 0).then(|| ("Range", format!("bytes={}-", part.len)));
        let answer = self.open(url, range.as_slice())?;
        let goes_on = match answer.status {
            206 => answer.headers.iter().any(|(name, value)| {
                name == "content-range" && value.starts_with(&format!("bytes {}-", part.len))
            }),
            _ => false,
        };
        if !goes_on {
            progress.inspect(|p| p.take_back(part.len));
            part.reset().map_err(Failure::Local)?;
            if answer.status != 200 {
                return Err(Failure::Passing("the server sent another part than asked for".into()));
            }
        }
        let mut body = answer.body;
        let mut buffer = vec![0; 128 << 10];
        loop {
            if self.stopped.load(Ordering::Relaxed) {
                return Err(Failure::Local(Error::refused("stopped")));
            }
            let n = body.read(&mut buffer).map_err(|e| Failure::Passing(e.into()))?;
            if n == 0 && part.len < download.size {
                let (len, size) = (part.len, download.size);
                return Err(Failure::Passing(
                    format!("cut off after {len} of {size} bytes").into(),
                ));
            }
            if n == 0 {
                return Ok(());
            }
            if part.len + n as u64 > download.size {
                let size = download.size;
                return Err(Failure::Lasting(format!("it is longer than {size} bytes").into()));
            }
            part.write(&buffer[..n]).map_err(Failure::Local)?;
            progress.inspect(|p| p.add(n as u64));
        }
    }

    /// An answer with status 200, 206, 304 or 416; everything else is a failure.
    fn open(&self, url: &str, headers: &[(&str, String)]) -> std::result::Result<Opened, Failure> {
        if let Some(path) = file_path(url) {
            return match File::open(path) {
                Ok(file) => Ok(Opened { status: 200, headers: Vec::new(), body: Box::new(file) }),
                Err(e) if e.kind() == io::ErrorKind::NotFound => Err(Failure::Missing),
                Err(e) => Err(Failure::Lasting(e.into())),
            };
        }
        let mut request = self.agent.get(url);
        for (name, value) in headers {
            request = request.header(*name, value);
        }
        let response = request.call().map_err(|e| match e {
            ureq::Error::BadUri(_) | ureq::Error::InvalidProxyUrl => Failure::Lasting(e.into()),
            e => Failure::Passing(e.into()),
        })?;
        let status = response.status();
        match status.as_u16() {
            200 | 206 | 304 | 416 => {}
            404 | 410 => return Err(Failure::Missing),
            408 | 429 | 500.. => {
                return Err(Failure::Passing(format!("the server says {status}").into()));
            }
            _ => return Err(Failure::Lasting(format!("the server says {status}").into())),
        }
        let headers = response.headers().iter().filter_map(|(name, value)| {
            Some((name.as_str().to_owned(), value.to_str().ok()?.to_owned()))
        });
        Ok(Opened {
            status: status.as_u16(),
            headers: headers.collect(),
            body: Box::new(response.into_body().into_reader()),
        })
    }
}

struct Opened {
    status: u16,
    headers: Vec<(String, String)>,
    body: Box<dyn Read>,
}

fn failed(url: &str, source: Box<dyn std::error::Error + Send + Sync>) -> Error {
    // The client's words for a failure of the system add nothing to the system's.
    let source = match source.downcast::<ureq::Error>() {
        Ok(error) => match *error {
            ureq::Error::Io(error) => error.into(),
            other => other.into(),
        },
        Err(source) => source,
    };
    Error::Fetch { url: without_credentials(url), source }
}

fn file_path(url: &str) -> Option<&Path> {
    let path = url.strip_prefix("file:")?;
    let path = path.strip_prefix("//localhost").or(path.strip_prefix("//")).unwrap_or(path);
    Some(Path::new(path))
}

/// `base/path`, with what an address cannot carry as it is escaped.
pub fn url(base: &str, path: &str) -> String {
    let escape = if file_path(base).is_some() { "%" } else { "%25" };
    format!("{base}/{}", path.replace('%', escape))
}

/// The beginning of a file. It stays where it is when the rest does not come, for the next time.
struct Part {
    file: File,
    path: PathBuf,
    target: PathBuf,
    /// Where someone else is at the same part: a file of our own, that will not stay.
    own: Option<Pending>,
    hasher: Sha256,
    len: u64,
}

impl Part {
    /// None where the whole is there.
    fn open(cache: &Cache, download: &Download) -> Result<Option<Part>> {
        let target = cache.blob(&download.sha256);
        let path = cache.partial(&download.sha256);
        if let Some(folder) = target.parent() {
            fs::create_dir_all(folder).map_err(Error::io("create", folder))?;
        }
        let file = File::options().read(true).write(true).create(true).truncate(false).open(&path);
        let file = file.map_err(Error::io("create", &path))?;
        let is_ours = file.try_lock().is_ok() && is_at(&file, &path);
        // Looked for only now: whoever had the lock may just have finished.
        if fs::metadata(&target).is_ok_and(|m| m.len() == download.size) {
            if is_ours {
                let _ = fs::remove_file(&path);
            }
            return Ok(None);
        }
        let mut part = match is_ours {
            true => Part { file, path, target, own: None, hasher: Sha256::new(), len: 0 },
            false => {
                let own = cache.create(&target)?;
                let file = own.file.try_clone().map_err(Error::io("open", &target))?;
                Part { file, path, target, own: Some(own), hasher: Sha256::new(), len: 0 }
            }
        };
        part.take_up(download.size)?;
        Ok(Some(part))
    }

    /// Hashes what is there. More than there can be is not the beginning of the file.
    fn take_up(&mut self, size: u64) -> Result<()> {
        let read = |e| Error::io("read", &self.path)(e);
        if self.file.metadata().map_err(read)?.len() > size {
            return self.reset();
        }
        let mut buffer = vec![0; 128 << 10];
        loop {
            let n = self.file.read(&mut buffer).map_err(Error::io("read", &self.path))?;
            if n == 0 {
                return Ok(());
            }
            self.hasher.update(&buffer[..n]);
            self.len += n as u64;
        }
    }

    fn reset(&mut self) -> Result<()> {
        self.len = 0;
        self.hasher = Sha256::new();
        self.rewind()
    }

    /// Goes to the end of what counts: a failed write may have left more.
    fn rewind(&mut self) -> Result<()> {
        self.file
            .set_len(self.len)
            .and_then(|()| self.file.seek(SeekFrom::Start(self.len)))
            .map_err(Error::io("write", &self.path))?;
        Ok(())
    }

    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.file.write_all(bytes).map_err(Error::io("write", &self.path))?;
        self.hasher.update(bytes);
        self.len += bytes.len() as u64;
        Ok(())
    }

    fn digest(&self) -> Digest {
        self.hasher.clone().finalize().into()
    }

    fn commit(self) -> Result<PathBuf> {
        match self.own {
            Some(own) => own.commit(),
            None => {
                fs::rename(&self.path, &self.target).map_err(Error::io("write", &self.target))?;
                Ok(self.target)
            }
        }
    }
}

/// Whether `path` is still the name of `file`.
fn is_at(file: &File, path: &Path) -> bool {
    match (file.metadata(), fs::metadata(path)) {
        (Ok(a), Ok(b)) => (a.dev(), a.ino()) == (b.dev(), b.ino()),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_files() {
        for (url, path) in [
            ("file:/srv/a", Some("/srv/a")),
            ("file:///srv/a", Some("/srv/a")),
            ("file://localhost/srv/a", Some("/srv/a")),
            ("http://srv/a", None),
        ] {
            assert_eq!(file_path(url), path.map(Path::new));
        }
        assert_eq!(url("http://m", "pool/a_1%3a2.deb"), "http://m/pool/a_1%253a2.deb");
        assert_eq!(url("file:/m", "pool/a_1%3a2.deb"), "file:/m/pool/a_1%3a2.deb");
    }
}
