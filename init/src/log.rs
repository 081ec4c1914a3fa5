//! Lines on the console.

use std::fmt;
use std::io::Write;

/// Prints `berth: ...` on the console. A console that fails is not worth failing for.
pub fn say(what: fmt::Arguments<'_>) {
    let _ = writeln!(std::io::stderr(), "berth: {what}");
}
