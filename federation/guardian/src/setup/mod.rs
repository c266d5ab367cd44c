//! From separate guardians to a federation, without a dealer.
//!
//! Each guardian prints a setup [`code`]; each operator adds the others' codes ([`stored`] keeps
//! them); on start all make the keys together over their links: [`rounds`] exchanges messages with
//! everybody, [`keygen`] is the protocol. Any difference or fault aborts it with the name of the
//! guardian at fault.

pub mod code;
#[cfg(test)]
mod code_tests;
pub mod keygen;
pub mod rounds;
pub mod stored;
#[cfg(test)]
pub(crate) mod tests;

pub use code::{FederationParams, SetupCode};
pub use stored::{SetupPhase, SetupStatus};
