//! Brings metadata into the cache and answers requests from it.

use super::fetch::{self, Answer, Client, Download, Validators};
use super::index::{self, Index};
use super::release::{self, Freshness, Listed, Release, Suite};
use super::{Archive, Mirrors, Network, Package, Request, Resolved, Trust, resolve::resolve};
use crate::cache::{Cache, Hashing, hex, key};
use crate::output::Progress;
use crate::{Error, Result};
use serde::{Deserialize, Serialize};
use std::fs::{self, File};
use std::io::{self, BufReader, Read};
use std::thread;

/// Increase when the resolver answers otherwise than before.
const FORMAT: &[u8] = b"resolution 1";

/// An `InRelease` may not be longer than this: fifty times what one is today.
const MAX_RELEASE: u64 = 8 << 20;

/// An `InRelease` as it lies in the cache.
#[derive(Serialize, Deserialize)]
struct Stored {
    url: String,
    validators: Validators,
    text: String,
}

/// See [`fn@super::resolve`].
pub fn answer(
    cache: &Cache,
    mirrors: &Mirrors,
    request: &Request,
    network: Network,
    trust: &Trust,
) -> Result<Resolved> {
    let client = Client::new();
    let here = Here { cache, mirrors, request, network, trust, client: &client };
    let suites = Suite::all_of(&request.suite);
    let releases = in_parallel(suites, |suite| here.release(&suite))?;
    let release_date = releases.iter().map(|r| r.date).max().unwrap_or(0);

    let wanted =
        serde_json::to_vec(request).map_err(|e| Error::refused(format!("request: {e}")))?;
    let digests: Vec<u8> = releases.iter().flat_map(|r| r.sha256).collect();
    let key = key(&[FORMAT, &digests, &wanted]);
    if let Some(json) = cache.read_derived("resolution", &key)?
        && let Ok(packages) = serde_json::from_slice::<Vec<Package>>(&json)
    {
        return Ok(Resolved { packages, release_date });
    }

    let listed = releases.iter().flat_map(|r| r.indexes.iter().map(move |listed| (r, listed)));
    let indexes = in_parallel(listed.collect(), |(release, listed)| here.index(release, listed))?;
    let packages = resolve(&indexes, request)?;
    let json =
        serde_json::to_vec(&packages).map_err(|e| Error::refused(format!("resolution: {e}")))?;
    cache.write_derived("resolution", &key, &json)?;
    Ok(Resolved { packages, release_date })
}

/// Does `work` for each item in a thread of its own; the first error in order counts.
fn in_parallel<T: Send, U: Send>(
    items: Vec<T>,
    work: impl Fn(T) -> Result<U> + Sync,
) -> Result<Vec<U>> {
    let work = &work;
    thread::scope(|scope| {
        let threads: Vec<_> =
            items.into_iter().map(|item| scope.spawn(move || work(item))).collect();
        let results = threads
            .into_iter()
            .map(|thread| thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
        results.collect()
    })
}

struct Here<'a> {
    cache: &'a Cache,
    mirrors: &'a Mirrors,
    request: &'a Request,
    network: Network,
    trust: &'a Trust,
    client: &'a Client,
}

impl Here<'_> {
    /// The newest verified `InRelease` of a suite.
    fn release(&self, suite: &Suite) -> Result<Release> {
        // Not by address: whoever changes the mirror keeps what is cached.
        let archive = match suite.archive {
            Archive::Main => "main",
            Archive::Security => "security",
        };
        let key = key(&[archive.as_bytes(), suite.name.as_bytes()]);
        let stored = self.cache.read_derived("release", &key)?;
        let stored = stored.and_then(|json| serde_json::from_slice::<Stored>(&json).ok());
        if self.network.is_offline() {
            let stored =
                stored.ok_or_else(|| not_cached(&format!("metadata of {}", suite.name)))?;
            let freshness = match self.network {
                Network::OfflineExpired => Freshness::NotRequired,
                _ => Freshness::RequiredOffline,
            };
            let release = self.verify(&stored.text, suite, freshness)?;
            if let Some(since) = &release.expired {
                eprintln!("warning: metadata of {} expired {since}, used all the same", suite.name);
            }
            return Ok(release);
        }
        let mut last = None;
        for base in self.mirrors.of(suite.archive) {
            let url = fetch::url(base, &format!("dists/{}/InRelease", suite.name));
            match self.release_from(&url, suite, stored.as_ref()) {
                Ok((release, None)) => return Ok(release),
                Ok((release, Some(new))) => {
                    let json = serde_json::to_vec(&new)
                        .map_err(|e| Error::refused(format!("metadata: {e}")))?;
                    self.cache.write_derived("release", &key, &json)?;
                    return Ok(release);
                }
                Err(e) => last = Some(e),
            }
        }
        Err(last.unwrap_or_else(|| {
            Error::refused(format!("no mirror is known for {}", suite.name))
                .with_hint("name one with --mirror")
        }))
    }

    /// What the mirror has, and how to keep it if it is new.
    fn release_from(
        &self,
        url: &str,
        suite: &Suite,
        stored: Option<&Stored>,
    ) -> Result<(Release, Option<Stored>)> {
        let known = stored.filter(|s| s.url == url).map(|s| &s.validators);
        let answer = self.client.get(url, known.unwrap_or(&Validators::default()), MAX_RELEASE)?;
        let (text, validators) = match (answer, stored) {
            (Answer::Unchanged, Some(stored)) => {
                return Ok((self.verify(&stored.text, suite, Freshness::Required)?, None));
            }
            (Answer::New(bytes, validators), _) => {
                let text = String::from_utf8(bytes).map_err(|_| {
                    Error::corrupt(format!("InRelease of {}: it is not a text", suite.name))
                })?;
                (text, validators)
            }
            (Answer::Missing | Answer::Unchanged, _) => {
                return Err(Error::refused(format!("{url} is not there"))
                    .with_hint(format!("is `{}` a suite of that mirror?", self.request.suite)));
            }
        };
        let release = self.verify(&text, suite, Freshness::Required)?;
        // One of several machines behind a name may lag; nobody gets to take back a fix.
        if let Some(stored) = stored.filter(|s| s.text != text)
            && let Ok(known) = self.verify(&stored.text, suite, Freshness::Required)
            && known.date > release.date
        {
            return Ok((known, None));
        }
        Ok((release, Some(Stored { url: url.to_owned(), validators, text })))
    }

    fn verify(&self, text: &str, suite: &Suite, freshness: Freshness) -> Result<Release> {
        let Trust { keyring, now } = self.trust;
        release::read(text.as_bytes(), suite, &self.request.architecture, keyring, freshness, *now)
    }

    /// A package index, condensed.
    fn index(&self, release: &Release, listed: &Listed) -> Result<Index> {
        let archive = release.suite.archive;
        let key = key(&[index::FORMAT, &listed.sha256]);
        if let Some(bytes) = self.cache.read_derived("index", &key)?
            && let Ok(text) = String::from_utf8(bytes)
        {
            return Ok(Index { archive, text });
        }
        let text = match self.condense(release, listed)? {
            Some(text) => text,
            // The cached file was damaged, and is gone now.
            None => self.condense(release, listed)?.ok_or_else(|| {
                Error::corrupt(format!("{}: the cache changes while it is read", listed.path))
            })?,
        };
        self.cache.write_derived("index", &key, text.as_bytes())?;
        Ok(Index { archive, text })
    }

    /// Fetches and condenses an index. None where the file in the cache was not what it has to be.
    fn condense(&self, release: &Release, listed: &Listed) -> Result<Option<String>> {
        let path = self.index_file(release, listed)?;
        let name = format!("{} of {}", listed.path, release.suite.name);
        let file = File::open(&path).map_err(Error::io("open", &path))?;
        let mut hashing = Hashing::new(BufReader::with_capacity(256 << 10, file));
        let xz = liblzma::read::XzDecoder::new_multi_decoder(&mut hashing);
        let text = index::condense(xz, &name);
        io::copy(&mut hashing.by_ref(), &mut io::sink()).map_err(Error::io("read", &path))?;
        let (_, sha256, size) = hashing.finish();
        if (sha256, size) != (listed.sha256, listed.size) {
            fs::remove_file(&path).map_err(Error::io("remove", &path))?;
            return Ok(None);
        }
        text.map(Some)
    }

    fn index_file(&self, release: &Release, listed: &Listed) -> Result<std::path::PathBuf> {
        let name = &release.suite.name;
        if self.network.is_offline() {
            let path = self.cache.blob(&listed.sha256);
            return match path.exists() {
                true => Ok(path),
                false => Err(not_cached(&format!("{} of {name}", listed.path))),
            };
        }
        let folder = listed.path.rsplit_once('/').map_or("", |(folder, _)| folder);
        let by_hash = format!("{folder}/by-hash/SHA256/{}", hex(&listed.sha256));
        let paths = release.by_hash.then_some(by_hash).into_iter().chain([listed.path.clone()]);
        let paths: Vec<String> = paths.map(|path| format!("dists/{name}/{path}")).collect();
        let bases = self.mirrors.of(release.suite.archive);
        let urls = bases.iter().flat_map(|base| paths.iter().map(|path| fetch::url(base, path)));
        let download = Download {
            what: format!("{} of {name}", listed.path),
            urls: urls.collect(),
            sha256: listed.sha256,
            size: listed.size,
        };
        let progress = (listed.size > 1 << 20)
            .then(|| Progress::start(format!("download package index of {name}"), listed.size));
        self.client.into_cache(self.cache, &download, progress.as_ref())
    }
}

/// Something cannot be had offline.
pub fn not_cached(what: &str) -> Error {
    Error::refused(format!("{what}: not in the cache")).with_hint("run once without --offline")
}
