//! `ecash restore INVITE`

use std::fmt;
use std::io::{IsTerminal as _, Read as _, Write as _};
use std::path::{Path, PathBuf};

use federation_client::restore::Progress as At;
use federation_client::{ClientError, Folder, Result, Words};
use federation_core::invite::InviteCode;
use federation_core::{Amount, FederationId};
use serde::Serialize;
use zeroize::Zeroizing;

use super::join::parse_invite;
use crate::output::{print, sat};
use crate::progress::Progress;

/// More than twelve words have, in bytes.
const MAX_WORDS: u64 = 1000;

/// Make a wallet again from its twelve words, in an empty folder.
///
/// The words are asked for, or read from stdin or a file: never given as an argument, since lists of processes and the
/// shell's history show those. The old copy of the wallet must not be used any more.
#[derive(Debug, clap::Args)]
pub struct Restore {
    /// An invite code of the federation, from a guardian: clnfed1…
    invite: String,
    /// The file with the words [default: stdin]
    #[arg(long, value_name = "FILE")]
    words_file: Option<PathBuf>,
}

#[derive(Serialize)]
struct Output {
    federation_id: FederationId,
    name: String,
    /// Can be spent now.
    balance_msat: Amount,
    /// Notes that are not signed yet, and deposits that are being claimed.
    pending_msat: Amount,
    notes: usize,
    /// When the backup was written that the guardians kept, in seconds since 1970.
    #[serde(skip_serializing_if = "Option::is_none")]
    backup_time: Option<u64>,
    /// What it brought back.
    operations: usize,
    /// Guardians that said what they have.
    guardians_asked: usize,
    /// In strings that were sent and not received so far; no part of the balance.
    sent_msat: Amount,
}

impl fmt::Display for Output {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "restored {}: {} in {} notes", self.name, sat(self.balance_msat), self.notes)?;
        if !self.pending_msat.is_zero() {
            writeln!(f, "{} more on the way", sat(self.pending_msat))?;
        }
        match self.backup_time {
            Some(_) => writeln!(
                f,
                "{} operations came back from the backup that guardians keep: see `ecash history`",
                self.operations
            )?,
            None => writeln!(
                f,
                "no backup was found with {} guardians: history and payments under way are lost, and e-cash that was sent and \
                 that nobody has received is part of the balance, until somebody does",
                self.guardians_asked
            )?,
        }
        if !self.sent_msat.is_zero() {
            writeln!(
                f,
                "{} were sent and not received so far: `ecash reclaim` takes them back",
                sat(self.sent_msat)
            )?;
        }
        write!(f, "do not use another copy of this wallet any more")
    }
}

pub async fn run(folder: &Folder, restore: &Restore, json: bool) -> Result<()> {
    let invite: InviteCode = parse_invite(&restore.invite)?;
    let words = match &restore.words_file {
        Some(path) => read(std::fs::File::open(path).map_err(|error| files(path, &error))?, path)?,
        None => stdin()?,
    };
    let progress = Progress::new("fetching the federation's configuration");
    let restored = folder.restore(&invite, &words, |at| progress.say(say(at))).await;
    drop(progress);
    let (client, restored) = restored?;
    let output = Output {
        federation_id: client.federation_id(),
        name: client.config().name.clone(),
        balance_msat: restored.balance,
        pending_msat: restored.pending,
        notes: restored.notes,
        backup_time: restored.backup,
        operations: restored.operations,
        guardians_asked: restored.answered,
        sent_msat: restored.sent,
    };
    print(&output, json)?;
    super::finish(&client, true, false).await;
    Ok(())
}

fn say(at: At) -> String {
    match at {
        At::Looking { numbers, found } => format!("looked for {numbers} notes, {found} found"),
        At::Checking { left } => format!("looking which are spent: {left} left"),
        At::Signing { left } => format!("waiting for the guardians to sign {left} notes"),
        At::Deposits => "looking for deposits".to_owned(),
        At::Backup => "asking for the backup".to_owned(),
    }
}

fn stdin() -> Result<Words> {
    let path = Path::new("stdin");
    let input = std::io::stdin();
    if !input.is_terminal() {
        return read(input, path);
    }
    // (The words show while they are typed, as they do on paper.)
    let _ = write!(std::io::stderr().lock(), "the twelve words of the wallet: ");
    let mut text = Zeroizing::new(String::new());
    while text.split_whitespace().count() < 12 {
        let before = text.len();
        input.read_line(&mut text).map_err(|error| files(path, &error))?;
        if text.len() == before || text.len() > 1000 {
            break;
        }
    }
    Words::parse(&text)
}

fn read(source: impl std::io::Read, path: &Path) -> Result<Words> {
    let mut text = Zeroizing::new(String::new());
    source.take(MAX_WORDS).read_to_string(&mut text).map_err(|error| files(path, &error))?;
    Words::parse(&text)
}

fn files(path: &Path, error: &std::io::Error) -> ClientError {
    ClientError::Files { path: path.display().to_string(), reason: error.to_string() }
}
