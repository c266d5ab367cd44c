//! The same scenarios on every engine, and the write batch against a model.

mod batch;
mod cluster;
mod engines;
