//! What a person types and sees: commands run in a folder of their own, and a transcript of them that
//! is compared with `snapshots/NAME.txt`. `BERTH_BLESS=1` writes the file instead; read the difference
//! before committing it.

use crate::{berth, project};
use std::path::{Path, PathBuf};
use std::process::Command;

/// A folder to work in, and what was typed and seen there.
#[derive(Debug)]
pub struct Transcript {
    folder: tempfile::TempDir,
    /// What was typed and seen so far.
    pub text: String,
}

impl Transcript {
    /// An empty folder, and nothing typed.
    #[expect(clippy::new_without_default, reason = "it makes a folder")]
    pub fn new() -> Transcript {
        Transcript { folder: tempfile::tempdir().expect("a folder"), text: String::new() }
    }

    /// The folder.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// A file in it.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Writes a file into it.
    pub fn write(&self, name: &str, text: &str) {
        std::fs::write(self.path(name), text).expect("written");
    }

    /// `berth` with arguments that hold no spaces, in the folder.
    pub fn command(&self, args: &str) -> Command {
        let mut command = Command::new(berth());
        command.args(args.split(' ').filter(|arg| !arg.is_empty())).current_dir(self.folder());
        command
    }

    /// Runs `berth` with arguments that hold no spaces; notes what it said and how it ended.
    pub fn berth(&mut self, args: &str) -> Option<i32> {
        self.run(args, self.command(args))
    }

    /// Runs `command` in the folder; notes it as `berth SHOWN`.
    pub fn run(&mut self, shown: &str, mut command: Command) -> Option<i32> {
        let output = command.current_dir(self.folder()).output().expect("it starts");
        self.text += &format!("$ berth {shown}\n");
        for bytes in [output.stdout, output.stderr] {
            let text = String::from_utf8(bytes).expect("text");
            // How a machine is emulated, and how far the coder is when, depends on this one.
            let steady = |line: &&str| !line.starts_with("berth: starting") && !line.ends_with('%');
            for line in text.lines().filter(steady) {
                self.text += &format!("{}\n", line.trim_end());
            }
        }
        match output.status.code() {
            Some(code) => self.text += &format!("[{code}]\n\n"),
            None => self.text += &format!("[{}]\n\n", output.status),
        }
        output.status.code()
    }

    /// Compares what was seen with what it should be, after `settle` has taken out what is never the
    /// same twice.
    pub fn compare(&self, name: &str, settle: impl FnOnce(String) -> String) {
        let folder = self.folder().to_str().expect("a plain path");
        let seen = settle(self.text.replace(folder, "[folder]"));
        let path = project().join("tests/snapshots").join(format!("{name}.txt"));
        if std::env::var_os("BERTH_BLESS").is_some() {
            std::fs::write(&path, &seen).expect("written");
        }
        let expected = std::fs::read_to_string(&path).unwrap_or_default();
        assert_eq!(seen, expected, "{} differs:\n{seen}", path.display());
    }
}
