//! The token of the admin API: a file that only the operator can read.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use axum::extract::{Request, State};
use axum::http::header::AUTHORIZATION;
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use federation_core::api::ApiError;
use rand::RngCore as _;
use subtle::ConstantTimeEq as _;
use zeroize::Zeroizing;

use crate::GatewayError;

/// The file's name in the data directory.
pub(crate) const TOKEN_FILE: &str = "admin-token";

/// The token: 64 hex digits.
#[derive(Clone)]
pub(crate) struct Token(Zeroizing<String>);

/// Reads the token's file; makes it if there is none.
pub(crate) fn load_or_create_token(dir: &Path) -> Result<Token, GatewayError> {
    let path = dir.join(TOKEN_FILE);
    let explain = |source| GatewayError::File { path: path.clone(), source };
    match std::fs::read_to_string(&path) {
        // A torn file is no secret that anybody has: make a new one.
        Ok(text) if text.trim().len() == 64 => return Ok(Token(Zeroizing::new(text.trim().to_owned()))),
        Ok(_) => {}
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => return Err(explain(error)),
    }
    let mut bytes = Zeroizing::new([0; 32]);
    rand::thread_rng().fill_bytes(bytes.as_mut());
    let token = Zeroizing::new(hex::encode(bytes.as_slice()));
    let new = dir.join("admin-token.new");
    let mut file =
        OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new).map_err(explain)?;
    file.write_all(token.as_bytes()).map_err(explain)?;
    file.sync_all().map_err(explain)?;
    std::fs::rename(&new, &path).map_err(explain)?;
    Ok(Token(token))
}

/// Lets requests with `Authorization: Bearer …` of the right token through.
pub(super) async fn check_token(State(token): State<Token>, request: Request, next: Next) -> Response {
    let given = request
        .headers()
        .get(AUTHORIZATION)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.strip_prefix("Bearer "))
        .unwrap_or_default();
    if bool::from(given.as_bytes().ct_eq(token.0.as_bytes())) {
        return next.run(request).await;
    }
    let detail = "give the token of the file admin-token in the gateway's data directory as a bearer token";
    GatewayError::from(ApiError::new(401, "unauthorized", detail)).into_response()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_token_is_private_and_stays() {
        let dir = tempfile::tempdir().unwrap();
        let token = load_or_create_token(dir.path()).unwrap();
        assert_eq!(token.0.len(), 64);
        assert_eq!(load_or_create_token(dir.path()).unwrap().0, token.0);
        let mode = std::fs::metadata(dir.path().join(TOKEN_FILE)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }
}
