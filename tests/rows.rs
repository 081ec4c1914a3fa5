//! Rows: many things to try in one machine, since a boot costs more than all of them.

use crate::SOON;
use qemu::Machine;
use std::time::Duration;

/// A row may build an image or wait for several containers.
const ROW: Duration = Duration::from_secs(600);

/// What every row may use. `$B` is the busybox image.
const WORDS: &str = r#"
B=berth.local/busybox:1
# A container by itself, which costs less than one in a network.
alone() { docker run --rm --network none "$@"; }
# The first is what was got, the second what it has to be.
same() { [ "$1" = "$2" ] || { echo "got '$1' instead of '$2'"; return 1; }; }
# The second is part of the first.
has() { case "$1" in *"$2"*) ;; *) echo "no '$2' in '$1'"; return 1 ;; esac; }
# It has to fail.
not() { if "$@"; then echo "worked, and should not have: $*"; return 1; fi; }
# Where the tasks of a Swarm service run.
nodes() { docker service ps "$1" -f desired-state=running --format '{{.Node}}' | sort -u | tr '\n' ' '; }
# It has to hold within three minutes.
soon() {
  end=$(($(date +%s) + 180))
  until eval "$1"; do
    [ $(date +%s) -lt $end ] || { echo "never: $1"; return 1; }
    sleep 1
  done
}
"#;

/// Tries rows in a machine, and remembers which failed.
#[derive(Debug)]
pub struct Rows<'a> {
    host: &'a mut Machine,
    tried: usize,
    failed: Vec<String>,
}

impl<'a> Rows<'a> {
    /// For a machine with a debug shell.
    pub fn new(host: &'a mut Machine) -> Rows<'a> {
        crate::sh(host, &format!("cat > /tmp/words <<'END'\n{WORDS}END"));
        Rows { host, tried: 0, failed: Vec::new() }
    }

    /// A row in the language of the host's shell, each command of which has to succeed.
    pub fn row(&mut self, name: &str, script: &str) {
        self.check(name, |host| {
            let command = format!(". /tmp/words\nset -e\n{script}");
            match host.shell(&command, ROW) {
                Ok(output) if output.status == 0 => Ok(()),
                Ok(output) => Err(format!("status {}\n{}", output.status, output.stdout)),
                Err(e) => Err(e.to_string()),
            }
        });
    }

    /// A row that is not, or not only, done in the host.
    pub fn check(&mut self, name: &str, row: impl FnOnce(&mut Machine) -> Result<(), String>) {
        let begun = self.host.elapsed();
        let result = row(self.host);
        let took = (self.host.elapsed() - begun).as_secs_f32();
        self.tried += 1;
        eprintln!("row {:2} {took:6.1} s: {name}", self.tried);
        if let Err(why) = result {
            eprintln!("{why}");
            self.failed.push(format!("{name}: {}", why.trim_end()));
        }
    }

    /// The end: every row has held, and the machine still answers.
    pub fn all_held(self) {
        let Rows { host, tried, failed } = self;
        assert!(failed.is_empty(), "{} of {tried} rows:\n{}", failed.len(), failed.join("\n"));
        host.shell("true", SOON).expect("the shell answers");
    }
}
