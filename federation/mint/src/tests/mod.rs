//! A mint of several guardians in one process, over stores in memory.

mod client;
mod encodings;
mod epochs;
mod faults;
mod federation;
mod routes;
