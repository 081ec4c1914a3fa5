//! The only crate with `unsafe` code and raw system calls.
//!
//! Everything here does one thing to the kernel and returns its [`std::io::Error`]; naming what
//! was attempted, and deciding anything, is up to the caller.
#![allow(unsafe_code)]

pub mod block;
pub mod clock;
pub mod console;
pub mod dm;
pub mod ext4;
pub mod file;
pub mod input;
pub mod kernel_log;
pub mod module;
pub mod mount;
pub mod netlink;
pub mod packet;
pub mod poll;
pub mod process;
pub mod processor;
pub mod reboot;
pub mod signal;
pub mod terminal;
pub mod uevent;
pub mod watchdog;
