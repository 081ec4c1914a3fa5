//! Measures tables and packs on real pairs of releases; each run is one process, so that its peak
//! memory is its own.
//!
//! ```text
//! measure patch  OLD-UKI OLD-ROOT NEW-UKI NEW-ROOT OUT   make OUT.table and OUT.pack
//! measure chunks NEW-UKI NEW-ROOT OUT
//! measure apply  OLD-UKI OLD-ROOT OUT                    decode both images into nothing
//! ```
//!
//! `BERTH_THREADS` says on how many threads, instead of one a core.
//!
//! Prints one line: what, bytes (table + pack, of which fetched), requests, seconds of CPU, peak
//! memory.

use delta::{
    Decoder, GAP, Held, Image, Images, MOST_REQUESTS, Origin, Source, Table, chunks, patch,
    requests,
};
use std::error::Error;
use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::num::NonZeroUsize;
use std::os::unix::fs::FileExt;

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments.as_slice() {
        ["patch", old_uki, old_root, uki, root, out] => {
            let (old, new) = (Pair::open(old_uki, old_root)?, Pair::open(uki, root)?);
            let mut pack = BufWriter::new(File::create(format!("{out}.pack"))?);
            let table = patch(&old.images(), &new.images(), threads()?, &mut pack, &mut |_, _| {})?;
            pack.flush()?;
            finish("patch", &table, out)
        }
        ["chunks", uki, root, out] => {
            let new = Pair::open(uki, root)?;
            let mut pack = BufWriter::new(File::create(format!("{out}.pack"))?);
            let table = chunks(&new.images(), delta::LEVEL, threads()?, &mut pack, &mut |_, _| {})?;
            pack.flush()?;
            finish("chunks", &table, out)
        }
        ["apply", old_uki, old_root, out] => apply(old_uki, old_root, out),
        _ => Err("usage: see the head of this file".into()),
    }
}

/// As many as there are cores, or `BERTH_THREADS`.
fn threads() -> Result<NonZeroUsize, Box<dyn Error>> {
    match std::env::var("BERTH_THREADS") {
        Ok(number) => Ok(number.parse()?),
        Err(_) => Ok(std::thread::available_parallelism()?),
    }
}

fn finish(what: &str, table: &Table, out: &str) -> Result<(), Box<dyn Error>> {
    let bytes = table.encode()?;
    fs::write(format!("{out}.table"), &bytes)?;
    println!(
        "{what:8} table {:>9} pack {:>11} pieces {:>5} {}",
        bytes.len(),
        table.pack_len(),
        table.pieces().len(),
        cost()?
    );
    Ok(())
}

fn apply(uki: &str, root: &str, out: &str) -> Result<(), Box<dyn Error>> {
    let old = Pair::open(uki, root)?;
    let old = old.images();
    let bytes = fs::read(format!("{out}.table"))?;
    let mut table = Table::decode(&bytes)?;
    if table.pieces().iter().any(|piece| matches!(piece.origin, Origin::Frame(_))) {
        table = table.using(&Held::scan(&old, &mut |_, _| {})?);
    }
    let pack = File::open(format!("{out}.pack"))?;
    let mut made = [0; 2];
    let mut decoder = Decoder::new()?;
    for piece in table.pieces() {
        let range = piece.payload().unwrap_or(0..0);
        let mut payload = vec![0; (range.end - range.start) as usize];
        pack.read_exact_at(&mut payload, range.start)?;
        decoder.decode(piece, &payload, &old, &mut |_, bytes| {
            made[piece.image as usize] += bytes.len();
            Ok(())
        })?;
    }
    let requests = requests(table.pieces(), |_| true, MOST_REQUESTS, GAP);
    let fetched: u64 = requests.iter().map(|request| request.range.end - request.range.start).sum();
    println!(
        "apply    fetched {:>11} requests {:>3} made {:>4} MiB uki {:>4} MiB {}",
        bytes.len() as u64 + fetched,
        requests.len() + 1,
        made[Image::Root as usize] >> 20,
        made[Image::Uki as usize] >> 20,
        cost()?
    );
    Ok(())
}

/// Seconds of CPU and peak memory of this process.
fn cost() -> Result<String, Box<dyn Error>> {
    let stat = fs::read_to_string("/proc/self/stat")?;
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or("").split_whitespace().collect();
    let ticks = fields[11].parse::<f64>()? + fields[12].parse::<f64>()?;
    let status = fs::read_to_string("/proc/self/status")?;
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap_or("?");
    Ok(format!("cpu {:.2} s peak {}", ticks / 100.0, peak.trim()))
}

struct Pair {
    uki: (File, u64),
    root: (File, u64),
}

impl Pair {
    fn open(uki: &str, root: &str) -> Result<Pair, Box<dyn Error>> {
        let open = |path: &str| -> Result<(File, u64), Box<dyn Error>> {
            let file = File::open(path)?;
            let len = file.metadata()?.len();
            Ok((file, len))
        };
        Ok(Pair { uki: open(uki)?, root: open(root)? })
    }

    fn images(&self) -> Images<'_> {
        Images {
            uki: Source { bytes: &self.uki.0, len: self.uki.1 },
            root: Source { bytes: &self.root.0, len: self.root.1 },
        }
    }
}
