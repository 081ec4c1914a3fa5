//! PID 1 of a Berth host.
mod network; mod random;
fn main() {}
