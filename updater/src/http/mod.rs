//! Fetching over HTTP: bounded in bytes and in time, resumed where a transfer broke off, from
//! whichever mirror works.
//!
//! What arrives is not verified here, so a transfer may go on at another mirror.

mod base;
mod pace;
mod proxy;
mod redirect;
mod tls;
mod transfer;

pub use base::Base;

use crate::source::SourceError;
use pace::{Bucket, pause};
use proxy::Forward;
use std::hash::{BuildHasher, RandomState};
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use transfer::{Failure, Want};

/// Bytes that are read at once.
const BUFFER: usize = 64 << 10;

/// A transfer that brought at least this much of a large file before it broke off is worth to be
/// resumed at once, without counting as failed.
const WORTHWHILE: u64 = 1 << 10;

/// The steps in which a pause looks whether it should end.
const STEP: Duration = Duration::from_millis(100);

/// Why fetching cannot even begin.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    /// No address of a repository.
    #[error("`{address}` is not the address of a repository: {why}")]
    Address {
        /// What was given.
        address: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// No address of a proxy.
    #[error("`{0}` is not the address of a proxy")]
    Proxy(String),
    /// A certificate that was configured cannot be used.
    #[error("read certificates from {path}")]
    Authority {
        /// The file.
        path: PathBuf,
        /// The reason.
        #[source]
        source: std::io::Error,
    },
}

/// How to fetch.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Most bytes a second.
    pub bandwidth: Option<u64>,
    /// A proxy: `http://[USER:PASSWORD@]HOST:PORT`. Variables of the environment are not looked at.
    pub proxy: Option<String>,
    /// Hosts that are reached without it: `host`, `.domain` or `*`.
    pub no_proxy: Vec<String>,
    /// PEM file of the certificate authorities of the host.
    pub authorities: PathBuf,
    /// PEM file of one more certificate authority.
    pub authority: Option<PathBuf>,
    /// When to give up.
    pub patience: Patience,
}

/// When to give up.
#[derive(Clone, Debug)]
pub struct Patience {
    /// For a connection.
    pub connect: Duration,
    /// For the next byte.
    pub silence: Duration,
    /// For a small file as a whole.
    pub small: Duration,
    /// For a large one: this long, and the time it takes at the slowest speed.
    pub large: Duration,
    /// Fewest bytes a second ...
    pub slowest: u64,
    /// ... over this long.
    pub window: Duration,
    /// How often all mirrors are tried in turn.
    pub rounds: u32,
    /// The pause after the first round; it doubles each time.
    pub first_pause: Duration,
    /// The longest pause.
    pub longest_pause: Duration,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            bandwidth: None,
            proxy: None,
            no_proxy: Vec::new(),
            authorities: "/etc/ssl/certs/ca-certificates.crt".into(),
            authority: None,
            patience: Patience::default(),
        }
    }
}

impl Default for Patience {
    fn default() -> Patience {
        Patience {
            connect: Duration::from_secs(15),
            silence: Duration::from_secs(30),
            small: Duration::from_secs(60),
            large: Duration::from_secs(600),
            slowest: 1 << 10,
            window: Duration::from_secs(30),
            rounds: 6,
            first_pause: Duration::from_secs(2),
            longest_pause: Duration::from_secs(60),
        }
    }
}

/// What happens during a transfer.
#[derive(Debug)]
pub enum Event<'a> {
    /// That many more bytes arrived.
    Received(u64),
    /// A try failed; the next one follows after the pause.
    Trouble {
        /// What failed.
        what: &'a str,
        /// How long until the next try.
        pause: Duration,
    },
}

/// Is told what happens.
pub type Listener = Box<dyn FnMut(Event<'_>) + Send>;

/// Copies of one repository. The one that worked last is asked first.
#[derive(Clone, Debug)]
pub struct Mirrors {
    bases: Vec<Base>,
    current: usize,
}

impl Mirrors {
    /// At least one.
    pub fn new(bases: Vec<Base>) -> Result<Mirrors, SetupError> {
        if bases.is_empty() {
            let address = String::new();
            return Err(SetupError::Address { address, why: "no mirror is configured" });
        }
        Ok(Mirrors { bases, current: 0 })
    }

    /// Number of mirrors.
    pub fn count(&self) -> usize {
        self.bases.len()
    }

    /// The one to ask now.
    pub fn current(&self) -> &Base {
        &self.bases[self.current]
    }

    /// Asks another one from now on.
    pub fn advance(&mut self) {
        self.current = (self.current + 1) % self.bases.len();
    }
}

/// Fetches files. Keeps a few connections open; has no threads of its own.
pub struct Client {
    agent: ureq::Agent,
    forward: Option<Forward>,
    bucket: Option<Bucket>,
    patience: Patience,
    listener: Option<Listener>,
    stopped: Arc<AtomicBool>,
    /// Time that is not the server's fault: limited bandwidth, a slow sink.
    excused: Duration,
}

impl Client {
    /// Without connections yet.
    pub fn new(settings: &Settings) -> Result<Client, SetupError> {
        let patience = settings.patience.clone();
        let tls = tls::config(settings)?;
        let config = |proxy: Option<ureq::Proxy>| {
            ureq::Agent::config_builder()
                .http_status_as_error(false)
                .proxy(proxy)
                .tls_config(tls.clone())
                .timeout_resolve(Some(patience.connect))
                .timeout_connect(Some(patience.connect))
                .timeout_recv_response(Some(patience.silence))
                .timeout_per_read(Some(patience.silence))
                .accept_encoding("identity")
                .user_agent(concat!("berth-updater/", env!("CARGO_PKG_VERSION")))
                .input_buffer_size(BUFFER)
                .output_buffer_size(8 << 10)
                .max_idle_connections(2)
                .max_redirects(0)
                .build()
        };
        let proxy = proxy::configured(settings)?;
        let forward = proxy.clone().and_then(|proxy| Forward::new(proxy, config(None)));
        Ok(Client {
            agent: config(proxy).new_agent(),
            forward,
            bucket: settings.bandwidth.map(Bucket::new),
            patience,
            listener: None,
            stopped: Arc::default(),
            excused: Duration::ZERO,
        })
    }

    /// Tells `listener` what happens from now on.
    pub fn set_listener(&mut self, listener: Option<Listener>) {
        self.listener = listener;
    }

    /// Once true, transfers and pauses end soon, with an error.
    pub fn stop_flag(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.stopped)
    }

    /// How often all mirrors are tried in turn.
    pub fn rounds(&self) -> u32 {
        self.patience.rounds
    }

    /// A small file, at most `limit` bytes of it; `None` when there is none.
    pub fn get(
        &mut self,
        folder: &Base,
        path: &str,
        limit: u64,
    ) -> Result<Option<Vec<u8>>, SourceError> {
        let mut bytes = Vec::new();
        let mut only = Mirrors { bases: vec![folder.clone()], current: 0 };
        let want = Want::whole(limit);
        let job = Job { rounds: 2.min(self.patience.rounds), time: self.patience.small, enough: 1 };
        let result = self.run(&mut only, path, want, job, &mut |piece| {
            bytes.extend_from_slice(piece);
            Ok(())
        });
        match result {
            Ok(()) => Ok(Some(bytes)),
            Err(Failure::Missing(_)) => Ok(None),
            Err(failure) => Err(failure.into()),
        }
    }

    /// Hands bytes `range` of a file of `size` bytes to `sink`, from whichever mirror has it.
    pub fn stream(
        &mut self,
        mirrors: &mut Mirrors,
        path: &str,
        size: u64,
        range: Range<u64>,
        sink: &mut dyn FnMut(&[u8]) -> std::io::Result<()>,
    ) -> Result<(), SourceError> {
        if range.start >= range.end {
            return Ok(());
        }
        if range.end > size {
            return Err(SourceError::Refused(format!(
                "{path}: bytes up to {} are asked for, and it has {size}",
                range.end
            )));
        }
        let bytes = range.end - range.start;
        let slowest = Duration::from_secs(bytes / self.patience.slowest.max(1));
        let job = Job {
            rounds: self.patience.rounds,
            time: self.patience.large + slowest,
            enough: WORTHWHILE,
        };
        self.run(mirrors, path, Want::part(size, range), job, sink).map_err(SourceError::from)
    }

    fn run(
        &mut self,
        mirrors: &mut Mirrors,
        path: &str,
        mut want: Want,
        job: Job,
        sink: &mut dyn FnMut(&[u8]) -> std::io::Result<()>,
    ) -> Result<(), Failure> {
        let start = Instant::now();
        self.excused = Duration::ZERO;
        // Mirrors that it makes no sense to ask again.
        let mut useless = vec![false; mirrors.count()];
        let mut failed = 0;
        loop {
            let file = mirrors.current().join(path);
            let before = want.at;
            let spent = start.elapsed().saturating_sub(self.excused);
            let left = job.time.saturating_sub(spent);
            let failure = match self.transfer(&file, &mut want, left, sink) {
                Ok(()) => return Ok(()),
                Err(failure @ (Failure::Sink(_) | Failure::Stopped)) => return Err(failure),
                Err(failure) => failure,
            };
            if start.elapsed().saturating_sub(self.excused) >= job.time {
                return Err(Failure::Passing(format!("{failure}; no more time for it")));
            }
            let lasting = !matches!(failure, Failure::Passing(_));
            useless[mirrors.current] |= lasting;
            if useless.iter().all(|&useless| useless) {
                return Err(failure);
            }
            if !lasting && want.at - before >= job.enough {
                failed = 0;
                self.tell(Event::Trouble { what: &failure.to_string(), pause: Duration::ZERO });
                continue;
            }
            mirrors.advance();
            while useless[mirrors.current] {
                mirrors.advance();
            }
            let mut wait = Duration::ZERO;
            if !lasting {
                failed += 1;
                let asked = useless.iter().filter(|&&useless| !useless).count() as u32;
                if failed % asked == 0 {
                    let round = failed / asked;
                    if round >= job.rounds {
                        return Err(failure);
                    }
                    wait = self.pause_after(round - 1);
                }
            }
            self.tell(Event::Trouble { what: &failure.to_string(), pause: wait });
            self.sleep(wait)?;
        }
    }

    /// How long to wait after round `round`, from 0.
    pub(crate) fn pause_after(&self, round: u32) -> Duration {
        // Its keys are random: enough to keep hosts apart.
        let random = RandomState::new().hash_one(round);
        pause(self.patience.first_pause, self.patience.longest_pause, round, random)
    }

    /// Waits, unless stopped.
    pub(crate) fn wait(&mut self, pause: Duration, what: &str) -> Result<(), SourceError> {
        self.tell(Event::Trouble { what, pause });
        Ok(self.sleep(pause)?)
    }

    fn sleep(&self, pause: Duration) -> Result<(), Failure> {
        let end = Instant::now() + pause;
        loop {
            if self.stopped.load(Ordering::Relaxed) {
                return Err(Failure::Stopped);
            }
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(());
            }
            std::thread::sleep(left.min(STEP));
        }
    }

    fn tell(&mut self, event: Event<'_>) {
        if let Some(listener) = &mut self.listener {
            listener(event);
        }
    }
}

/// How long to try for one file.
struct Job {
    rounds: u32,
    /// Without pauses that are not the server's fault.
    time: Duration,
    /// Bytes that make a broken transfer worth to be resumed at once.
    enough: u64,
}
