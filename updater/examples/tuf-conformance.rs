//! Speaks the command line that the conformance suite of the TUF project expects of a client, so
//! that the suite can be run against ours: see docs/decisions/005.
//!
//! ```text
//! tuf-conformance --metadata-dir D init ROOT
//! tuf-conformance --metadata-dir D --metadata-url U refresh
//! tuf-conformance --metadata-dir D --metadata-url U --target-base-url B --target-dir T
//!                 --target-name N... download
//! ```

use std::collections::BTreeMap;
use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use updater::http::{Base, Client, Settings};
use updater::source::SourceError;
use updater::tuf::{self, Fetch, Store};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

struct Folder<'a>(Base, &'a mut Client);

impl Fetch for Folder<'_> {
    fn get(&mut self, name: &str, limit: u64) -> std::result::Result<Option<Vec<u8>>, SourceError> {
        self.1.get(&self.0, name, limit)
    }
}

struct Arguments {
    options: BTreeMap<String, Vec<String>>,
    words: Vec<String>,
}

impl Arguments {
    fn parse() -> Result<Arguments> {
        let mut it = Arguments { options: BTreeMap::new(), words: Vec::new() };
        let mut arguments = std::env::args().skip(1);
        while let Some(argument) = arguments.next() {
            match argument.strip_prefix("--") {
                Some(name) => {
                    let value = arguments.next().ok_or(format!("--{name} needs a value"))?;
                    it.options.entry(name.to_owned()).or_default().push(value);
                }
                None => it.words.push(argument),
            }
        }
        Ok(it)
    }

    fn one(&self, name: &str) -> Result<&str> {
        let values = self.options.get(name).map_or(&[][..], Vec::as_slice);
        Ok(values.last().ok_or(format!("--{name} is missing"))?)
    }
}

fn run() -> Result<()> {
    let arguments = Arguments::parse()?;
    let folder = PathBuf::from(arguments.one("metadata-dir")?);
    let words: Vec<&str> = arguments.words.iter().map(String::as_str).collect();
    match words[..] {
        ["init", root] => {
            fs::copy(root, folder.join("root.json"))?;
        }
        ["refresh"] => {
            refresh(&arguments, &folder, &mut Client::new(&Settings::default())?)?;
        }
        ["download"] => download(&arguments, &folder)?,
        _ => return Err("init ROOT, refresh or download is expected".into()),
    }
    Ok(())
}

fn refresh(arguments: &Arguments, folder: &Path, client: &mut Client) -> Result<tuf::Trusted> {
    let root = fs::read(folder.join("root.json"))?;
    let base = Base::parse(arguments.one("metadata-url")?)?;
    let now = jiff::Timestamp::now();
    Ok(tuf::refresh(&Store::open(folder)?, &root, &mut Folder(base, client), now)?)
}

fn download(arguments: &Arguments, folder: &Path) -> Result<()> {
    let mut client = Client::new(&Settings::default())?;
    let trusted = refresh(arguments, folder, &mut client)?;
    let store = Store::open(folder)?;
    let metadata = Base::parse(arguments.one("metadata-url")?)?;
    let targets = Base::parse(arguments.one("target-base-url")?)?;
    for name in arguments.options.get("target-name").into_iter().flatten() {
        let mut metadata = Folder(metadata.clone(), &mut client);
        let found = trusted.find(name, &store, &mut metadata)?;
        let target = found.ok_or(format!("no target {name}"))?;
        let to = Path::new(arguments.one("target-dir")?).join(name.replace('/', "%2F"));
        if fs::read(&to).is_ok_and(|bytes| target.check(&bytes).is_ok()) {
            continue;
        }
        let path = trusted.path(name, &target).ok_or("no digest that is known")?;
        let bytes = Folder(targets.clone(), &mut client).get(&path, target.length)?;
        let bytes = bytes.ok_or(format!("{path}: not there"))?;
        target.check(&bytes)?;
        fs::write(to, bytes)?;
    }
    Ok(())
}

fn main() -> ExitCode {
    let Err(error) = run() else { return ExitCode::SUCCESS };
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text.push_str(&format!(": {error}"));
        source = error.source();
    }
    eprintln!("error: {text}");
    ExitCode::FAILURE
}
