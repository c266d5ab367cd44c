//! The command line.

use std::path::PathBuf;

use clap::{Parser, Subcommand};

use crate::commands::{deposit, history, invoice, join, pay, receive, reclaim, restore, send, withdraw};

/// A wallet for e-cash of a federation.
///
/// Amounts are in satoshi unless they end in msat: 1000, 1000sat, 2500msat.
#[derive(Debug, Parser)]
#[command(name = "ecash", version)]
pub struct Args {
    /// The wallet's folder [default: ~/.ecash]
    #[arg(long, global = true, env = "ECASH_DATA_DIR", value_name = "FOLDER")]
    pub data_dir: Option<PathBuf>,
    /// Print JSON: one object a line, amounts in msat; an error as {"code", "message"} on stderr
    #[arg(long, global = true)]
    pub json: bool,
    /// What to do
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Join a federation with an invite code from one of its guardians
    Join(join::Join),
    /// Make a wallet again from its twelve words
    Restore(restore::Restore),
    /// Show the federation and its guardians
    Info,
    /// Show what can be spent
    Balance,
    /// Show an address to pay bitcoin in to
    Deposit(deposit::Deposit),
    /// Hand out e-cash, as a text that whoever reads it first can have
    Send(send::Send),
    /// Take in e-cash
    Receive(receive::Receive),
    /// Take back e-cash that was sent and that nobody has received
    Reclaim(reclaim::Reclaim),
    /// Pay a Lightning invoice (BOLT 11)
    Pay(pay::Pay),
    /// Make a Lightning invoice
    Invoice(invoice::Invoice),
    /// Pay bitcoin out to an address
    Withdraw(withdraw::Withdraw),
    /// Show what was done, the newest first
    History(history::History),
    /// Show the federation's Lightning gateways and their fees
    Gateways,
    /// Show the twelve words from which this wallet can be made again: keep them secret
    Words,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;
    use federation_core::Amount;

    use super::*;

    fn parse(line: &str) -> Result<Args, clap::Error> {
        Args::try_parse_from(line.split(' '))
    }

    #[test]
    fn the_definition_is_consistent() {
        Args::command().debug_assert();
    }

    #[test]
    fn global_options_go_anywhere() {
        let args = parse("ecash balance --json --data-dir /x").unwrap();
        assert!(args.json && args.data_dir == Some("/x".into()));
        assert!(parse("ecash --json balance").unwrap().json);
    }

    #[test]
    fn amounts_have_units() {
        let amount = |line| match parse(line).unwrap().command {
            Command::Send(send) => send.amount,
            other => panic!("{other:?}"),
        };
        assert_eq!(amount("ecash send 7"), Amount::from_msat(7000));
        assert_eq!(amount("ecash send 7msat"), Amount::from_msat(7));
        for wrong in ["ecash send 1.5", "ecash send -1", "ecash send", "ecash send 1 2", "ecash"] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn withdrawals_are_in_whole_satoshi_or_all() {
        use withdraw::Much;
        let amount = |text: &str| match parse(&format!("ecash withdraw bc1q {text}")).map(|args| args.command)
        {
            Ok(Command::Withdraw(withdraw)) => Some(withdraw.amount),
            _ => None,
        };
        assert_eq!(amount("all"), Some(Much::All));
        assert_eq!(amount("1000"), Some(Much::Sat(1000)));
        assert_eq!(amount("2000msat"), Some(Much::Sat(2)));
        assert_eq!(amount("1500msat"), None);
    }
}
