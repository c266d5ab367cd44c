//! A mint of several guardians in one process, over stores in memory.

mod ahead;
mod client;
mod early;
mod encodings;
mod epochs;
mod faults;
mod federation;
mod routes;

pub(crate) use federation::config;
