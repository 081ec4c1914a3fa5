//! (stub)
pub mod pe;
