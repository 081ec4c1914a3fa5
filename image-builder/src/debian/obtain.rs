//! Brings packages into the cache and unpacks them: downloads and processors busy together.

use super::fetch::{self, Client, Download};
use super::metadata::not_cached;
use super::package::Unpacked;
use super::{Mirrors, Network, Package, unpack};
use crate::cache::Cache;
use crate::output::Progress;
use crate::{Error, Result};
use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError, mpsc};
use std::thread;

/// Downloads at the same time.
const DOWNLOADS: usize = 6;

/// Downloads what is not cached and unpacks it, in the order of `packages`. What is damaged in the
/// cache is made again.
pub fn obtain(
    cache: &Cache,
    mirrors: &Mirrors,
    packages: &[Package],
    network: Network,
) -> Result<Vec<Unpacked>> {
    for package in packages {
        package.check()?;
    }
    let client = Client::new();
    let here = Here { cache, mirrors, network, client: &client };
    // The largest first: the last to end should be a small one.
    let mut order: Vec<usize> = (0..packages.len()).collect();
    order.sort_by_key(|i| std::cmp::Reverse(packages[*i].size));
    let (missing, present): (Vec<usize>, Vec<usize>) =
        order.into_iter().partition(|i| !here.is_present(&packages[*i]));
    if let Some(first) = missing.first()
        && network.is_offline()
    {
        let Package { name, version, .. } = &packages[*first];
        return Err(not_cached(&format!("package {name} {version}")));
    }
    let total = missing.iter().map(|i| packages[*i].size).sum();
    let progress = (!missing.is_empty())
        .then(|| Progress::start(format!("download {} packages", missing.len()), total));

    let (ready, work) = mpsc::channel::<(usize, Option<PathBuf>)>();
    present.iter().for_each(|i| drop(ready.send((*i, None))));
    let downloads = DOWNLOADS.min(missing.len());
    let missing = Mutex::new(VecDeque::from(missing));
    let work = Mutex::new(work);
    let results: Vec<Mutex<Option<Unpacked>>> = packages.iter().map(|_| Mutex::new(None)).collect();
    let failure = Mutex::new(None);
    // Whoever fails first tells the others to stop; what they say then is of no interest.
    let fail = |error: Error| {
        lock(&failure).get_or_insert(error);
        client.stop();
        lock(&missing).clear();
    };
    thread::scope(|scope| {
        for _ in 0..downloads {
            let ready = ready.clone();
            scope.spawn(|| {
                let ready = ready;
                loop {
                    // A statement of its own: the lock must not be held while downloading.
                    let next = lock(&missing).pop_front();
                    let Some(i) = next else { return };
                    match here.download(&packages[i], progress.as_ref()) {
                        Ok(path) => drop(ready.send((i, Some(path)))),
                        Err(e) => fail(e),
                    }
                }
            });
        }
        drop(ready);
        for _ in 0..thread::available_parallelism().map_or(2, usize::from) {
            scope.spawn(|| {
                loop {
                    let Ok((i, fresh)) = lock(&work).recv() else { return };
                    if lock(&failure).is_some() {
                        return;
                    }
                    match here.unpack(&packages[i], fresh) {
                        Ok(unpacked) => *lock(&results[i]) = Some(unpacked),
                        Err(e) => fail(e),
                    }
                }
            });
        }
    });
    if let Some(error) = lock(&failure).take() {
        return Err(error);
    }
    // Without a failure every package went through both kinds of threads.
    Ok(results.iter().filter_map(|result| lock(result).take()).collect())
}

/// A thread that panics takes the others with it at the end of the scope; until then its data is
/// as good as any.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

struct Here<'a> {
    cache: &'a Cache,
    mirrors: &'a Mirrors,
    network: Network,
    client: &'a Client,
}

impl Here<'_> {
    fn is_present(&self, package: &Package) -> bool {
        unpack::is_cached(self.cache, &package.sha256) || self.cache.blob(&package.sha256).exists()
    }

    fn download(&self, package: &Package, progress: Option<&Progress>) -> Result<PathBuf> {
        let bases = self.mirrors.of(package.archive);
        let download = Download {
            what: format!("package {} {}", package.name, package.version),
            urls: bases.iter().map(|base| fetch::url(base, &package.filename)).collect(),
            sha256: package.sha256,
            size: package.size,
        };
        self.client.into_cache(self.cache, &download, progress)
    }

    /// `fresh` is a `.deb` that was hashed while it was downloaded.
    fn unpack(&self, package: &Package, fresh: Option<PathBuf>) -> Result<Unpacked> {
        let (cache, sha256) = (self.cache, &package.sha256);
        let unpacked =
            |(facts, tar)| Unpacked::new(package, facts, tar, unpack::tar_path(cache, sha256));
        if let Some(path) = fresh {
            if let Some(found) = unpack::unpack(cache, package, &path, true)? {
                return unpacked(found);
            }
        } else if let Some(found) = unpack::cached(cache, sha256)? {
            return unpacked(found);
        }
        let blob = cache.blob(sha256);
        if blob.exists()
            && let Some(found) = unpack::unpack(cache, package, &blob, false)?
        {
            return unpacked(found);
        }
        // Everything cached of it is damaged.
        let Package { name, version, .. } = package;
        if self.network.is_offline() {
            return Err(Error::corrupt(format!("package {name} {version}: damaged in the cache"))
                .with_hint("run once without --offline to fetch it again"));
        }
        unpack::forget(cache, sha256);
        let path = self.download(package, None)?;
        match unpack::unpack(cache, package, &path, true)? {
            Some(found) => unpacked(found),
            None => Err(Error::corrupt(format!("package {name} {version}: damaged in the cache"))),
        }
    }
}
