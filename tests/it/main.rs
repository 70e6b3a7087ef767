//! The integration tests: one binary, a file per promise, all through the public API on the real kernel.

mod support;

mod limits;
mod nested;
mod poll;
mod smoke;
mod tails;
