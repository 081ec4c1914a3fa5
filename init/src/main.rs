//! PID 1 of a Berth host: see the library.

fn main() -> std::process::ExitCode {
    init::run()
}
