//! Starts a disk image in QEMU: for `berth run`, and as the harness of the tests.
//!
//! What is to run is a value ([`Config`]), and so is where QEMU and its firmware lie
//! ([`Toolset`]); [`command`] turns both into a command line without looking at the machine.
//! [`accel`] finds out whether KVM really works here. [`Machine`] is a running guest: its console
//! line by line, its power button, its debug shell. [`run`] puts one on a person's terminal.

pub mod accel;
pub mod command;
pub mod config;
pub mod console;
mod error;
mod http;
mod machine;
mod orphan;
mod port;
mod probe_rom;
mod process;
mod qmp;
pub mod run;
mod shell;

pub use accel::{Accel, Accelerator};
pub use config::{Config, Disk, Nic, OnReboot, PortForward, Toolset};
pub use console::Line;
pub use error::{Error, Result};
pub use http::Response;
pub use machine::Machine;
pub use shell::Output;
