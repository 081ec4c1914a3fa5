//! The way from a repository to a host, against a real web server that misbehaves and a publisher that lies.

mod attacks;
mod host;
mod http;
mod publisher;
mod repository;
mod server;
mod tough;
mod way;
