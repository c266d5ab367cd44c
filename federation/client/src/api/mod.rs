//! Asking the guardians: each answer is worth one guardian's word, and up to f of them may lie.
//!
//! - [`FederationApi::submit`] hands a transaction to one guardian, to the next if that one is down or slow; submitting
//!   twice is harmless.
//! - [`FederationApi::any`] takes the first answer, for what proves itself (signatures, hashes).
//! - [`FederationApi::agreed`] takes what f + 1 guardians say alike: at least one of them is honest.
//! - [`FederationApi::all`] asks everybody.
//!
//! How a request travels is behind [`Transport`]: [`Http`] in earnest, a fake one in tests.

mod http;
mod quorum;
mod status;
mod transport;

pub use http::Http;
pub use quorum::FederationApi;
pub(crate) use quorum::{Refusals, Step};
pub use status::Submission;
pub use transport::{CallError, Method, Request, Transport};
