//! Making the pieces of a release from fetched ranges and the running slot.

use crate::disk::Disk;
use crate::error::{Error, Result};
use crate::install::Assembly;
use crate::source::{Content, SourceError};
use contract::Slot;
use contract::manifest::File;
use contract::release::Parts;
use delta::{
    BLOCK, Decoder, GAP, Held, Images, MAX_TABLE, MOST_REQUESTS, Piece, ReadAt, Source, Table,
};
use sha2::{Digest, Sha256};
use std::io;
use sys::block::BlockDevice;

/// A partition of the running slot, read at any place.
pub struct Running<'a, D>(&'a D);

impl<D: BlockDevice> ReadAt for Running<'_, D> {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        let block = BLOCK as u64;
        let first = offset / block * block;
        let skip = (offset - first) as usize;
        if skip == 0 && buf.len().is_multiple_of(BLOCK) {
            return self.0.read_at(offset, buf);
        }
        let mut whole = vec![0; (skip + buf.len()).next_multiple_of(BLOCK)];
        self.0.read_at(first, &mut whole)?;
        buf.copy_from_slice(&whole[skip..skip + buf.len()]);
        Ok(())
    }
}

/// What the running slot has.
pub struct Old<'a, D> {
    uki: (Running<'a, D>, u64),
    root: (Running<'a, D>, u64),
}

impl<'a, D: BlockDevice> Old<'a, D> {
    /// The images of `slot`, which are this long.
    pub fn new(disk: &'a Disk<D>, slot: Slot, uki_len: u64, root_len: u64) -> Old<'a, D> {
        Old { uki: (Running(disk.boot(slot)), uki_len), root: (Running(disk.root(slot)), root_len) }
    }

    /// As the decoder takes them.
    pub fn images(&self) -> Images<'_> {
        Images {
            uki: Source { bytes: &self.uki.0, len: self.uki.1 },
            root: Source { bytes: &self.root.0, len: self.root.1 },
        }
    }
}

/// Fetches and checks a table of pieces.
pub fn fetch_table(content: &mut dyn Content, file: &File) -> Result<Table> {
    if file.size > MAX_TABLE {
        let why = format!("a table of {} bytes; at most {MAX_TABLE} are read", file.size);
        return Err(Error::Content(why));
    }
    let mut bytes = Vec::new();
    content.fetch(file, 0..file.size, &mut |piece| {
        bytes.extend_from_slice(piece);
        Ok(())
    })?;
    if contract::hex::encode(&Sha256::digest(&bytes)) != file.sha256 {
        return Err(Error::Source(SourceError::Refused(format!(
            "content/{} has another SHA-256 than its name",
            file.sha256
        ))));
    }
    Table::decode(&bytes).map_err(|e| Error::Content(format!("its table of pieces: {e}")))
}

/// The pieces of a release on their way.
pub struct Parcel<'a> {
    table: Table,
    pack: &'a File,
    old: Images<'a>,
    content: &'a mut dyn Content,
    decoder: Decoder,
}

impl<'a> Parcel<'a> {
    /// Fetches the table of `parts`. Chunks that the running slot holds are taken from there when
    /// `held` is set.
    pub fn open(
        parts: &'a Parts,
        old: Images<'a>,
        held: bool,
        content: &'a mut dyn Content,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<Parcel<'a>> {
        let mut table = fetch_table(content, &parts.table)?;
        if held {
            let held = Held::scan(&old, progress).map_err(bad)?;
            table = table.using(&held);
        }
        if table.pack_len() > parts.pack.size {
            return Err(Error::Content("its table names more than its pack has".to_owned()));
        }
        let decoder = Decoder::new().map_err(bad)?;
        Ok(Parcel { table, pack: &parts.pack, old, content, decoder })
    }
}

fn bad(e: delta::Error) -> Error {
    let mut text = e.to_string();
    let mut source = std::error::Error::source(&e);
    while let Some(e) = source {
        text.push_str(&format!(": {e}"));
        source = e.source();
    }
    Error::Content(text)
}

/// Makes pieces as their payloads come.
struct Maker<'m> {
    pieces: &'m [Piece],
    /// Numbers of the pieces still to be made.
    wanted: std::iter::Peekable<std::slice::Iter<'m, usize>>,
    payload: Vec<u8>,
    old: Images<'m>,
    decoder: &'m mut Decoder,
    sink: &'m mut dyn FnMut(usize, &[u8]) -> io::Result<()>,
    /// Position in the pack.
    at: u64,
}

impl Maker<'_> {
    /// Takes bytes of the pack from `self.at` on.
    fn take(&mut self, mut bytes: &[u8]) -> Result<()> {
        while !bytes.is_empty() {
            self.make_without_payload()?;
            let range = match self.wanted.peek().and_then(|n| self.pieces[**n].payload()) {
                Some(range) => range,
                // What follows the last wanted piece of a range.
                None => return Ok(()),
            };
            let gap = range.start.saturating_sub(self.at).min(bytes.len() as u64);
            bytes = &bytes[gap as usize..];
            self.at += gap;
            let now = range.end.saturating_sub(self.at).min(bytes.len() as u64);
            if gap == 0 && now == 0 {
                return Err(Error::Content("its pieces lie over each other".to_owned()));
            }
            self.payload.extend_from_slice(&bytes[..now as usize]);
            bytes = &bytes[now as usize..];
            self.at += now;
            if self.at == range.end {
                self.make_next()?;
            }
        }
        Ok(())
    }

    fn make_without_payload(&mut self) -> Result<()> {
        while self.wanted.peek().is_some_and(|n| self.pieces[**n].payload().is_none()) {
            self.make_next()?;
        }
        Ok(())
    }

    fn make_next(&mut self) -> Result<()> {
        let Some(number) = self.wanted.next() else { return Ok(()) };
        let mut failed = None;
        let sink = &mut self.sink;
        let made = self.decoder.decode(
            &self.pieces[*number],
            &self.payload,
            &self.old,
            &mut |_, bytes| {
                sink(*number, bytes).map_err(|e| {
                    let copy = io::Error::new(e.kind(), e.to_string());
                    failed = Some(e);
                    copy
                })
            },
        );
        self.payload.clear();
        match failed {
            Some(e) => Err(Error::Source(SourceError::Sink(e))),
            None => made.map_err(bad),
        }
    }
}

impl Assembly for Parcel<'_> {
    fn pieces(&self) -> &[Piece] {
        self.table.pieces()
    }

    fn make(
        &mut self,
        wanted: &[usize],
        sink: &mut dyn FnMut(usize, &[u8]) -> io::Result<()>,
    ) -> Result<()> {
        let pieces = self.table.pieces();
        let is_wanted = |number: usize| wanted.binary_search(&number).is_ok();
        let requests = delta::requests(pieces, is_wanted, MOST_REQUESTS, GAP);
        let mut maker = Maker {
            pieces,
            wanted: wanted.iter().peekable(),
            payload: Vec::new(),
            old: self.old,
            decoder: &mut self.decoder,
            sink,
            at: 0,
        };
        for request in requests {
            maker.at = request.range.start;
            let mut failed = None;
            let fetched = self.content.fetch(self.pack, request.range, &mut |bytes| {
                maker.take(bytes).map_err(|e| {
                    failed = Some(e);
                    io::Error::other("the pieces cannot be made")
                })
            });
            match failed {
                Some(e) => return Err(e),
                None => fetched?,
            }
        }
        maker.make_without_payload()?;
        match maker.wanted.next() {
            None => Ok(()),
            Some(_) => Err(Error::Content("its pack ends early".to_owned())),
        }
    }
}
