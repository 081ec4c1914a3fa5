//! The only crate with `unsafe` code and raw system calls.
#![allow(unsafe_code)]

pub mod clock;
pub mod input;
pub mod netlink;
pub mod packet;
pub mod poll;
pub mod process;
pub mod signal;
pub mod terminal;
