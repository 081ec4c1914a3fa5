//! PID 1 of a Berth host.
fn main() {}
