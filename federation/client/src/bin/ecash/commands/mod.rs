//! The commands: one a file, its `Output` beside its `run`.

pub mod balance;
pub mod deposit;
pub mod gateways;
pub mod history;
pub mod info;
pub mod invoice;
pub mod join;
pub mod pay;
pub mod receive;
pub mod reclaim;
pub mod restore;
pub mod send;
pub mod withdraw;
pub mod words;

use std::path::PathBuf;
use std::time::Duration;

use federation_client::{ClientError, Folder, Result};

use crate::args::{Args, Command};

/// How long a command that is done waits for its change, so that the next one can spend it.
const SETTLE: Duration = Duration::from_secs(10);
/// How long a command waits for its backup. If that is too short, the next one tries again.
const BACKUP: Duration = Duration::from_secs(2);

fn folder(args: &Args) -> Result<Folder> {
    let default = || std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".ecash"));
    let path = args.data_dir.clone().or_else(default);
    path.map(Folder::new).ok_or_else(|| ClientError::Files {
        path: "~/.ecash".to_owned(),
        reason: "HOME is not set: give --data-dir".to_owned(),
    })
}

/// Does what the command line says.
///
/// # Errors
/// See [`ClientError`].
pub async fn run(args: &Args) -> Result<()> {
    let (folder, json) = (folder(args)?, args.json);
    match &args.command {
        Command::Join(join) => return join::run(&folder, join, json).await,
        Command::Restore(restore) => return restore::run(&folder, restore, json).await,
        Command::Words => return words::run(&folder, json),
        _ => {}
    }
    let client = folder.open().await?;
    let result = match &args.command {
        Command::Info => info::run(&client, json).await,
        Command::Balance => balance::run(&client, json).await,
        Command::Deposit(deposit) => deposit::run(&client, deposit, json).await,
        Command::Send(send) => send::run(&client, send, json).await,
        Command::Receive(receive) => receive::run(&client, receive, json).await,
        Command::Reclaim(reclaim) => reclaim::run(&client, reclaim, json).await,
        Command::Pay(pay) => pay::run(&client, pay, json).await,
        Command::Invoice(invoice) => invoice::run(&client, invoice, json).await,
        Command::Withdraw(withdraw) => withdraw::run(&client, withdraw, json).await,
        Command::History(history) => history::run(&client, history, json).await,
        Command::Gateways => gateways::run(&client, json).await,
        Command::Join(_) | Command::Restore(_) | Command::Words => Ok(()),
    };
    finish(&client, result.is_ok(), moves_money(&args.command)).await;
    result
}

/// What follows when the result is on the screen: the change comes an epoch later. Fails nothing: what was asked for is done, and
/// whoever asked must not ask again.
async fn finish(client: &federation_client::Client, done: bool, tidy: bool) {
    if done && let Err(error) = put_in_order(client, tidy).await {
        tracing::warn!("the wallet could not be put in order: {error}");
    }
    if let Err(error) = client.finish_backup(BACKUP).await {
        tracing::warn!("the wallet's backup could not be written: {error}");
    }
}

async fn put_in_order(client: &federation_client::Client, tidy: bool) -> Result<()> {
    if client.settle_all(SETTLE).await? && tidy && client.tidy().await? {
        client.settle_all(SETTLE).await?;
    }
    Ok(())
}

/// Whether the federation was needed anyway, so that notes may be put in order now: rarely, and a second longer. Handing out
/// notes may be without a connection.
fn moves_money(command: &Command) -> bool {
    use Command::{Deposit, Invoice, Pay, Receive, Reclaim, Withdraw};
    matches!(command, Deposit(_) | Invoice(_) | Pay(_) | Receive(_) | Reclaim(_) | Withdraw(_))
}
