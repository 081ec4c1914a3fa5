//! The `berth` command. Parses arguments, calls the library, prints: it decides nothing else.

mod cli;

use clap::Parser;
use image_builder::Error;
use signal_hook::consts::SIGXFSZ;
use std::sync::Arc;

fn main() -> std::process::ExitCode {
    // With a handler, writing beyond the limit of file sizes is an error that can be told instead
    // of the end. That it cannot be caught is no reason to do nothing.
    let _ = signal_hook::flag::register(SIGXFSZ, Arc::default());
    let code = match cli::run(cli::Cli::parse()) {
        Ok(code) => code,
        Err(error) => {
            print_error(&error);
            error.exit_code()
        }
    };
    std::process::ExitCode::from(code as u8)
}

/// `error: ...` with the chain of causes, then `hint: ...`.
fn print_error(error: &Error) {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    eprintln!("error: {text}");
    if let Some(hint) = error.hint() {
        eprintln!("hint: {hint}");
    }
}
