//! What the federation has agreed on in the past, and what came of it.
//!
//! - [`lthash`] and [`digest`]: one hash for the whole agreed state, brought up to date in each epoch's commit;
//! - [`archive`]: headers, their signatures and batches (cut into [`batches`]' pieces) in the database; [`keys`] signs and verifies headers;
//! - [`snapshot`]: the state in files, for guardians that lost theirs or are too far behind;
//! - [`prune`]: what is older than two snapshots is forgotten;
//! - [`backup`]: a guardian's secrets in a file of their own.

pub mod archive;
pub mod backup;
mod batches;
pub mod digest;
pub mod keys;
pub mod lthash;
pub mod prune;
pub mod snapshot;

pub use archive::Archive;
pub use keys::IdentityKeys;
