//! What can go wrong for a gateway, each with what its operator or user can do.

use std::path::PathBuf;

use federation_client::ClientError;
use federation_core::FederationId;
use federation_core::api::ApiError;
use federation_core::db::DbError;
use federation_core::rest::ProblemDocument;

use crate::node::NodeError;

/// Why the gateway did not do something. Swaps that have begun go on by themselves, whatever was answered.
#[derive(Debug, thiserror::Error)]
pub enum GatewayError {
    /// Its own database. The gateway stops: what is on disk is what counts at the next start.
    #[error(transparent)]
    Db(#[from] DbError),
    /// A federation's wallet.
    #[error("the federation: {0}")]
    Client(#[from] ClientError),
    /// The Lightning node.
    #[error(transparent)]
    Node(#[from] NodeError),
    /// A file.
    #[error("{path}: {source}; check the disk and its permissions")]
    File {
        /// Which one.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The words that keys come from.
    #[error("the words of the gateway can't be read: {0}; restore the file `words` from your backup")]
    Words(String),
    /// An address that can't be listened on.
    #[error("can't listen on {address}: {source}; choose another address")]
    Bind {
        /// Which one.
        address: std::net::SocketAddr,
        /// What the system said.
        source: std::io::Error,
    },
    /// A federation that the gateway isn't connected to.
    #[error("this gateway does not serve the federation {0}")]
    UnknownFederation(FederationId),
    /// A request that can't be served as it is; the status, code and sentence of its problem document.
    #[error(transparent)]
    Refused(#[from] ApiError),
}

impl GatewayError {
    /// A request that makes no sense (422).
    pub(crate) fn refused(code: &str, detail: impl Into<String>) -> Self {
        Self::Refused(ApiError::refused(code, detail))
    }

    /// The RFC 9457 problem document for this error.
    pub fn problem(&self) -> ProblemDocument {
        let (status, code, detail) = match self {
            Self::Refused(error) => (error.status, error.code.as_str(), error.detail.clone()),
            Self::UnknownFederation(_) => (404, "unknown_federation", self.to_string()),
            Self::Client(error) if error.is_transient() => (503, error.code(), self.to_string()),
            Self::Client(error) => (422, error.code(), self.to_string()),
            Self::Node(NodeError::Refused(_)) => (422, "node_refused", self.to_string()),
            Self::Node(NodeError::OnchainFunds(_)) => (422, "onchain_funds", self.to_string()),
            Self::Node(NodeError::Unavailable(_)) => (503, "node_unavailable", self.to_string()),
            Self::Node(_) => (409, "node_state", self.to_string()),
            // Details of files and databases are the operator's business: they are in the log.
            Self::Db(_) | Self::File { .. } | Self::Words(_) | Self::Bind { .. } => {
                (500, "internal", "the gateway has a fault: try again later or choose another one".to_owned())
            }
        };
        let title = axum::http::StatusCode::from_u16(status)
            .ok()
            .and_then(|status| status.canonical_reason())
            .unwrap_or("Error");
        ProblemDocument {
            kind: "about:blank".to_owned(),
            title: title.to_owned(),
            status,
            code: code.to_owned(),
            detail,
        }
    }
}
