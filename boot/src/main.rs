//! The slot picker.
#![no_std]
#![no_main]
