//! The root filesystem into the image, and its dm-verity tree, in one pass: each block is hashed
//! while it is hot, on all processors.

use super::ext4::Filesystem;
use super::verity::{self, Built, Leaves, Params};
use crate::{Error, Result};
use contract::layout::VERITY_BLOCK as BLOCK;
use contract::verity::BlockHasher;
use mkext4::RegionSink;
use std::fs::File;
use std::io;
use std::mem;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Mutex, PoisonError};

/// How much is hashed and written at once.
const BATCH: usize = 1 << 20;
/// Batches on their way, which bounds the memory in use.
const QUEUE: usize = 8;

/// Writes `filesystem` into `image` at `offset`, where there are zeros, and builds its tree.
pub fn write(
    filesystem: &Filesystem<'_>,
    image: &File,
    path: &Path,
    offset: u64,
    params: &Params,
) -> Result<Built> {
    let leaves = Leaves::of_zeros(filesystem.size() / BLOCK as u64, &params.salt);
    let hasher = leaves.hasher();
    let leaves = Mutex::new(leaves);
    let failure = Mutex::new(None);
    let threads = std::thread::available_parallelism().map_or(1, usize::from).min(QUEUE);
    let (full, take) = sync_channel::<Batch>(QUEUE);
    let (give_back, spare) = sync_channel::<Vec<u8>>(2 * QUEUE);
    let take = Mutex::new(take);
    let written = std::thread::scope(|scope| {
        for _ in 0..threads {
            let (take, leaves, failure) = (&take, &leaves, &failure);
            let (hasher, give_back) = (hasher.clone(), give_back.clone());
            scope.spawn(move || {
                while let Some(batch) = next(take) {
                    if let Err(e) = store(&batch, &hasher, image, offset, leaves) {
                        lock(failure).get_or_insert(e);
                    }
                    // Nobody has to take it back.
                    let _ = give_back.try_send(batch.bytes);
                }
            });
        }
        let mut sink = Sink { batch: Batch::default(), full, spare, failure: &failure };
        filesystem.write(&mut sink).and_then(|()| sink.flush().map_err(Error::io("write", path)))
    });
    // The error of the disk, not that of the queue behind it.
    if let Some(e) = lock(&failure).take() {
        return Err(Error::io("write", path)(e));
    }
    written?;
    Ok(verity::build(params, leaves.into_inner().unwrap_or_else(PoisonError::into_inner)))
}

/// Consecutive whole blocks.
#[derive(Default)]
struct Batch {
    /// Byte offset in the filesystem.
    start: u64,
    bytes: Vec<u8>,
}

fn next(queue: &Mutex<Receiver<Batch>>) -> Option<Batch> {
    lock(queue).recv().ok()
}

fn store(
    batch: &Batch,
    hasher: &BlockHasher,
    image: &File,
    offset: u64,
    leaves: &Mutex<Leaves>,
) -> io::Result<()> {
    image.write_all_at(&batch.bytes, offset + batch.start)?;
    let hashes = hasher.hash_all(&batch.bytes);
    lock(leaves).put(batch.start / BLOCK as u64, &hashes);
    Ok(())
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Collects what the filesystem writer emits into batches of whole blocks.
struct Sink<'a> {
    batch: Batch,
    full: SyncSender<Batch>,
    spare: Receiver<Vec<u8>>,
    failure: &'a Mutex<Option<io::Error>>,
}

impl Sink<'_> {
    /// Hands on what was collected.
    fn flush(&mut self) -> io::Result<()> {
        if lock(self.failure).is_some() {
            return Err(io::Error::other("an earlier write failed"));
        }
        if self.batch.bytes.is_empty() {
            return Ok(());
        }
        // The writer emits whole blocks; a rest would go unhashed.
        if !self.batch.bytes.len().is_multiple_of(BLOCK) {
            return Err(io::Error::other("the filesystem was not written in whole blocks"));
        }
        let mut bytes = self.spare.try_recv().unwrap_or_default();
        bytes.clear();
        let batch = mem::replace(&mut self.batch, Batch { start: 0, bytes });
        self.full.send(batch).map_err(|_| io::Error::other("the writer threads ended"))
    }

    fn append(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let end = self.batch.start + self.batch.bytes.len() as u64;
        if self.batch.bytes.is_empty() || end != offset {
            self.flush()?;
            self.batch.start = offset;
        }
        self.batch.bytes.extend_from_slice(bytes);
        Ok(())
    }
}

impl RegionSink for Sink<'_> {
    fn data(&mut self, mut offset: u64, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            if self.batch.bytes.len() >= BATCH {
                self.flush()?;
            }
            let n = bytes.len().min(BATCH - self.batch.bytes.len());
            self.append(offset, &bytes[..n])?;
            offset += n as u64;
            bytes = &bytes[n..];
        }
        Ok(())
    }

    /// Whole blocks of zeros are in the image and in the tree already. What is left is the end of
    /// a file's last block.
    fn zeros(&mut self, offset: u64, len: u64) -> io::Result<()> {
        match offset % BLOCK as u64 {
            0 => Ok(()),
            _ => self.append(offset, &[0; BLOCK][..len as usize]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::ext4::{Identity, plan};
    use crate::image::verity::{Range, Verdict, verify};
    use crate::tree::{Node, Tree};

    #[test]
    fn the_tree_fits_what_is_in_the_image() {
        let mut tree = Tree::new(0);
        for i in 0..300_usize {
            let content: Vec<u8> = (0..i * i * 17).map(|b| (b * i) as u8).collect();
            tree.insert(&format!("d{}/f{i}", i % 7), Node::file(content, 0));
        }
        let filesystem = plan(&tree, &Identity { uuid: [1; 16], epoch: 9 }).expect("a layout");
        let image = tempfile::tempfile().expect("a temporary file");
        let (offset, len) = (1 << 20, filesystem.size());
        image.set_len(offset + len).expect("set length");
        let params = Params { salt: [2; 32], uuid: [3; 16] };
        let path = Path::new("x");
        let built = write(&filesystem, &image, path, offset, &params).expect("written");
        image.write_all_at(&built.bytes, offset + len).expect("write");
        let data = Range { offset, len };
        let tree = Range { offset: offset + len, len: built.bytes.len() as u64 };
        let verdict = verify(&image, path, data, tree, &built.root_hash).expect("readable");
        assert_eq!(verdict, Verdict::Whole { data_blocks: len / 4096 });
    }
}
