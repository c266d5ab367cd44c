//! How results and errors are printed.

use std::fmt::Display;
use std::io::Write as _;
use std::process::ExitCode;

use federation_client::{ClientError, Result};
use federation_core::Amount;
use serde::Serialize;

use crate::qr::Qr;

/// Prints a result as [`print`] does, and for people also a QR code of `text`, if they want one.
///
/// # Errors
/// If stdout is closed.
pub fn print_scannable(result: &(impl Serialize + Display), text: &str, qr: Qr, json: bool) -> Result<()> {
    print(result, json)?;
    qr.of(text, json).map_or(Ok(()), |code| write_line(&code))
}

/// Prints a result: its `Display` for people, or one line of JSON.
///
/// # Errors
/// If stdout is closed.
pub fn print(result: &(impl Serialize + Display), json: bool) -> Result<()> {
    let text = if json {
        serde_json::to_string(result).map_err(|error| ClientError::Internal(error.to_string()))?
    } else {
        result.to_string()
    };
    write_line(text.trim_end())
}

fn write_line(text: &str) -> Result<()> {
    // Flushed, since a program may read the first line while this one goes on.
    let mut stdout = std::io::stdout().lock();
    writeln!(stdout, "{text}")
        .and_then(|()| stdout.flush())
        .map_err(|error| ClientError::Files { path: "stdout".to_owned(), reason: error.to_string() })
}

#[derive(Serialize)]
struct Problem<'a> {
    code: &'a str,
    message: String,
}

/// Prints an error in one line, and gives the exit code.
pub fn error(error: &ClientError, json: bool) -> ExitCode {
    // Other people's words may have line breaks in them.
    let message = error.to_string().replace(['\n', '\r'], " ");
    let text = if json {
        serde_json::to_string(&Problem { code: error.code(), message }).unwrap_or_default()
    } else {
        format!("error: {message}")
    };
    let _ = writeln!(std::io::stderr().lock(), "{text}");
    match error {
        ClientError::PaymentPending(_) => ExitCode::from(3),
        _ => ExitCode::FAILURE,
    }
}

/// An amount for people: in satoshi, with thousands apart, and the msat if there are any.
pub fn sat(amount: Amount) -> String {
    let digits = amount.sat_floor().to_string();
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && digits.len().saturating_sub(place) % 3 == 0 {
            text.push(' ');
        }
        text.push(digit);
    }
    match amount.msat() % 1000 {
        0 => format!("{text} sat"),
        msat => format!("{text}.{msat:03} sat"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_read_well() {
        let text = |msat| sat(Amount::from_msat(msat));
        assert_eq!(text(0), "0 sat");
        assert_eq!(text(1_234_567_000), "1 234 567 sat");
        assert_eq!(text(999_001), "999.001 sat");
        assert_eq!(text(7), "0.007 sat");
    }
}
