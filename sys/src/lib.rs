//! The only crate with `unsafe` code and raw system calls.
#![allow(unsafe_code)]
