//! The content of releases: coded into files of a repository, and back. The code is that of the
//! crate `delta`.

use super::store::Store;
use super::system::{Region, System, tree};
use crate::image::verity::{self, Leaves};
use crate::output::Progress;
use crate::{Error, Result};
use contract::hex;
use contract::layout::BLOCK;
use contract::manifest::File as Described;
use contract::release::{CONTENT_DIR, Parts, Patch, Release};
use delta::{Decoder, Image, Images, MAX_TABLE, Source, Table};
use sha2::{Digest, Sha256};
use std::fs::File;
use std::io::{self, BufWriter, Read, Write};
use std::num::NonZeroUsize;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// All content files of a release.
pub fn files(release: &Release) -> impl Iterator<Item = &Described> {
    let patches = release.patches.iter().map(|patch| &patch.content);
    [&release.content].into_iter().chain(patches).flat_map(|parts| [&parts.table, &parts.pack])
}

/// Where a content file lies.
pub fn path(repository: &Path, file: &Described) -> PathBuf {
    repository.join(CONTENT_DIR).join(&file.sha256)
}

/// Codes all of `new`, with this level of zstd.
pub fn encode_whole(new: &System, level: i32, store: &Store) -> Result<Parts> {
    let mut bar = Bar::new("compress", new);
    encode(store, |pack| {
        delta::chunks(&new.images(), level, cores(), pack, &mut |done, of| bar.at(done, of))
    })
}

/// Codes what changed from `old` to `new`. `from` is the old version, for people.
pub fn encode_patch(old: &System, new: &System, from: &str, store: &Store) -> Result<Parts> {
    let mut bar = Bar::new(format!("compare with {from}"), new);
    let (old, new) = (old.images(), new.images());
    encode(store, |pack| delta::patch(&old, &new, cores(), pack, &mut |done, of| bar.at(done, of)))
}

/// How many threads code. What they make does not depend on it.
fn cores() -> NonZeroUsize {
    std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN)
}

fn encode(
    store: &Store,
    code: impl FnOnce(&mut dyn Write) -> delta::Result<Table>,
) -> Result<Parts> {
    let folder = store.root().join(CONTENT_DIR);
    let mut pack = BufWriter::with_capacity(1 << 20, store.create(CONTENT_DIR)?);
    let table = code(&mut pack).map_err(coding(&folder))?;
    let pack = pack.into_inner().map_err(|e| Error::io("write", &folder)(e.into_error()))?;
    let pack = pack.finish_by_digest()?;
    let bytes = table.encode().map_err(coding(&folder))?;
    let mut part = store.create(CONTENT_DIR)?;
    part.write_all(&bytes).map_err(Error::io("write", &folder))?;
    Ok(Parts { table: part.finish_by_digest()?, pack })
}

/// A full disk is told as such, whoever met it.
fn coding(path: &Path) -> impl FnOnce(delta::Error) -> Error {
    move |error| match error {
        delta::Error::Write { source, .. } => Error::io("write", path)(source),
        other => Error::corrupt(format!("{}: {other}", path.display())),
    }
}

/// Where decoded bytes go: the image, the offset in it, the bytes.
type Sink<'a> = &'a mut dyn FnMut(Image, u64, &[u8]) -> io::Result<()>;

/// Makes the images of `release` out of `parts` and `old`, and compares them with what the release
/// says. `what` names the parts for errors.
fn decode(
    repository: &Path,
    release: &Release,
    parts: &Parts,
    old: Option<&System>,
    what: &str,
    sink: Sink<'_>,
) -> Result<()> {
    let wrong = |why: String| Error::corrupt(format!("{}: {what}: {why}", repository.display()));
    let table_path = path(repository, &parts.table);
    let mut bytes = Vec::new();
    File::open(&table_path)
        .and_then(|file| file.take(MAX_TABLE).read_to_end(&mut bytes))
        .map_err(Error::io("read", &table_path))?;
    if described(&bytes) != parts.table {
        return Err(wrong(format!("{} is damaged", table_path.display())));
    }
    let table = Table::decode(&bytes).map_err(|e| wrong(e.to_string()))?;
    let len = [table.len(Image::Uki), table.len(Image::Root)];
    if len != [release.uki.size, release.root.size] {
        return Err(wrong(format!("it is {len:?} bytes, and the release says otherwise")));
    }
    let (params, root_hash) = tree(&release.root)?;
    let mut leaves = Leaves::of_zeros(release.root.size / BLOCK as u64, &params.salt);
    let hasher = leaves.hasher();
    let mut uki = Sha256::new();

    let pack_path = path(repository, &parts.pack);
    let pack = File::open(&pack_path).map_err(Error::io("open", &pack_path))?;
    let nothing: &[u8] = &[];
    let none = Source { bytes: &nothing.to_vec(), len: 0 };
    let old = old.map_or(Images { uki: none, root: none }, System::images);
    let mut decoder = Decoder::new().map_err(|e| wrong(e.to_string()))?;
    let mut payload = Vec::new();
    for piece in table.pieces() {
        let range = piece.payload().unwrap_or(0..0);
        let len = range.end.saturating_sub(range.start).min(delta::MAX_PAYLOAD);
        payload.resize(len as usize, 0);
        pack.read_exact_at(&mut payload, range.start).map_err(Error::io("read", &pack_path))?;
        let mut take = |offset: u64, bytes: &[u8]| {
            match piece.image {
                Image::Uki => uki.update(bytes),
                Image::Root => leaves.put(offset / BLOCK as u64, &hasher.hash_all(bytes)),
            }
            sink(piece.image, offset, bytes)
        };
        decoder.decode(piece, &payload, &old, &mut take).map_err(|e| match e {
            delta::Error::Write { source, .. } => Error::io("write", "a temporary file")(source),
            other => wrong(other.to_string()),
        })?;
    }
    if hex::encode(&uki.finalize()) != release.uki.sha256 {
        return Err(wrong("it does not make the kernel image of the release".to_owned()));
    }
    if verity::build(&params, leaves).root_hash != root_hash {
        return Err(wrong("it does not make the root hash of the release".to_owned()));
    }
    Ok(())
}

/// Whether the whole content of `release` makes its kernel image and its root hash.
pub fn check_whole(repository: &Path, release: &Release) -> Result<()> {
    let what = format!("release {}", release.version);
    decode(repository, release, &release.content, None, &what, &mut |_, _, _| Ok(()))
}

/// Whether `patch` makes `release` out of `old`.
pub fn check_patch(
    repository: &Path,
    release: &Release,
    patch: &Patch,
    old: &System,
) -> Result<()> {
    let what = format!("release {}, patch from {}", release.version, patch.from);
    decode(repository, release, &patch.content, Some(old), &what, &mut |_, _, _| Ok(()))
}

/// Makes a release again, into files without a name that vanish with the result.
pub fn restore(repository: &Path, release: &Release) -> Result<System> {
    let file = || tempfile::tempfile_in(repository).map_err(Error::io("write", repository));
    let (uki, root) = (file()?, file()?);
    let what = format!("release {}", release.version);
    decode(repository, release, &release.content, None, &what, &mut |image, offset, bytes| {
        match image {
            Image::Uki => uki.write_all_at(bytes, offset),
            Image::Root => root.write_all_at(bytes, offset),
        }
    })?;
    Ok(System {
        uki: Region { file: uki, offset: 0, len: release.uki.size },
        root: Region { file: root, offset: 0, len: release.root.size },
    })
}

/// Compares a content file with its size and digest.
pub fn check_file(repository: &Path, sha256: &str, size: u64) -> Result<()> {
    let path = repository.join(CONTENT_DIR).join(sha256);
    let mut file = File::open(&path).map_err(Error::io("open", &path))?;
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 1 << 20];
    let mut read = 0;
    loop {
        match file.read(&mut buffer).map_err(Error::io("read", &path))? {
            0 => break,
            n => {
                hash.update(&buffer[..n]);
                read += n as u64;
            }
        }
    }
    match read == size && hex::encode(&hash.finalize()) == sha256 {
        true => Ok(()),
        false => Err(Error::corrupt(format!("{} is damaged", path.display()))),
    }
}

/// Size and digest of `bytes`.
pub fn described(bytes: &[u8]) -> Described {
    Described { size: bytes.len() as u64, sha256: hex::encode(&Sha256::digest(bytes)) }
}

/// Shows how far the coder is, as a part of what it makes.
struct Bar {
    progress: Progress,
    total: u64,
    last: u64,
}

impl Bar {
    fn new(label: impl Into<String>, new: &System) -> Bar {
        let total = new.uki.len + new.root.len;
        Bar { progress: Progress::start(label, total), total, last: 0 }
    }

    fn at(&mut self, done: u64, of: u64) {
        let made = u128::from(done) * u128::from(self.total) / u128::from(of.max(1));
        let made = u64::try_from(made).unwrap_or(self.total).max(self.last);
        self.progress.add(made - self.last);
        self.last = made;
    }
}
