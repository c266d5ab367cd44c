//! `gatewayd admin`: the operator's commands, as requests to the admin API.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, bail};
use bitcoin::secp256k1::PublicKey;
use clap::Subcommand;
use federation_core::rest::ProblemDocument;
use federation_core::{Amount, FederationId};
use reqwest::{Client, Method, Url};
use serde_json::{Value, json};
use zeroize::Zeroizing;

use super::run::ADMIN_URL_FILE;
use crate::api::TOKEN_FILE;

/// How long an answer may take: a withdrawal waits for the federation's signatures.
const ANSWER: Duration = Duration::from_secs(150);

/// What to ask a running gateway.
#[derive(Debug, Subcommand)]
pub enum AdminCommand {
    /// All there is to know: node, federations, swaps, alarms.
    Status,
    /// The gateway's e-cash in all federations.
    Balance,
    /// The federations that it serves.
    Federations,
    /// Joins a federation and serves it.
    Connect {
        /// The federation's invite code.
        invite: String,
    },
    /// Serves a federation no more; it must be empty.
    Leave {
        /// Its id.
        federation: FederationId,
    },
    /// A deposit address in a federation: what is paid to it becomes the gateway's e-cash.
    Deposit {
        /// Its id.
        federation: FederationId,
    },
    /// Pays e-cash out on chain.
    Withdraw {
        /// The federation's id.
        federation: FederationId,
        /// Where to.
        address: String,
        /// What arrives, such as 10000sat; all there is if it is left out.
        amount: Option<Amount>,
        /// The most for the on-chain fee, such as 500sat.
        #[arg(long)]
        fee_max: Option<Amount>,
    },
    /// Takes in an e-cash string.
    ReceiveEcash {
        /// The string.
        ecash: String,
    },
    /// Makes an e-cash string.
    SendEcash {
        /// The federation's id.
        federation: FederationId,
        /// How much, such as 10000sat.
        amount: Amount,
    },
    /// Changes the fees.
    Fees {
        /// For each payment that a user makes, msat.
        send_base_msat: u64,
        /// For such payments, millionths.
        send_ppm: u64,
        /// For each payment that a user gets, msat.
        receive_base_msat: u64,
        /// For such payments, millionths.
        receive_ppm: u64,
    },
    /// Takes nothing new and finishes what is open; `status` says when it is safe to stop.
    Drain {
        /// Takes new swaps again.
        #[arg(long)]
        off: bool,
    },
    /// An address of the Lightning node's own on-chain wallet.
    Address,
    /// Sends from the Lightning node's own on-chain wallet.
    OnchainSend {
        /// Where to.
        address: String,
        /// How much arrives, such as 10000sat.
        amount: Amount,
        /// Sat per 1000 weight units; the node's estimate if it is left out.
        #[arg(long)]
        fee_rate: Option<u64>,
    },
    /// Connects to a Lightning peer.
    Peer {
        /// `node_id@address:port`
        peer: String,
    },
    /// Opens a channel.
    OpenChannel {
        /// `node_id`, or `node_id@address:port`.
        peer: String,
        /// Its size, such as 1000000sat.
        amount: Amount,
        /// What of it is given to the peer.
        #[arg(long)]
        push: Option<Amount>,
        /// Keeps it out of the public graph.
        #[arg(long)]
        private: bool,
    },
    /// The Lightning channels.
    Channels,
    /// Closes a channel.
    CloseChannel {
        /// Its id.
        channel_id: String,
        /// Without the peer.
        #[arg(long)]
        force: bool,
    },
}

/// Method, path and body.
type Call = (Method, String, Value);

fn call(command: AdminCommand) -> anyhow::Result<Call> {
    let get = |path: &str| (Method::GET, path.to_owned(), Value::Null);
    let post = |path: &str, body: Value| (Method::POST, path.to_owned(), body);
    Ok(match command {
        AdminCommand::Status => get("/v1/status"),
        AdminCommand::Balance => get("/v1/balance"),
        AdminCommand::Federations => get("/v1/federations"),
        AdminCommand::Connect { invite } => post("/v1/federations", json!({ "invite": invite })),
        AdminCommand::Leave { federation } => {
            (Method::DELETE, format!("/v1/federations/{federation}"), Value::Null)
        }
        AdminCommand::Deposit { federation } => post("/v1/deposit", json!({ "federation_id": federation })),
        AdminCommand::Withdraw { federation, address, amount, fee_max } => {
            let amount_sat = amount.map(whole_sat).transpose()?;
            let max_fee_sat = fee_max.map(Amount::sat_floor);
            post(
                "/v1/withdraw",
                json!({ "federation_id": federation, "address": address, "amount_sat": amount_sat, "max_fee_sat": max_fee_sat }),
            )
        }
        AdminCommand::ReceiveEcash { ecash } => post("/v1/ecash/receive", json!({ "ecash": ecash })),
        AdminCommand::SendEcash { federation, amount } => {
            post("/v1/ecash/send", json!({ "federation_id": federation, "amount_msat": amount }))
        }
        AdminCommand::Fees { send_base_msat, send_ppm, receive_base_msat, receive_ppm } => post(
            "/v1/fees",
            json!({ "send_base_msat": send_base_msat, "send_ppm": send_ppm, "receive_base_msat": receive_base_msat, "receive_ppm": receive_ppm }),
        ),
        AdminCommand::Drain { off } => post("/v1/drain", json!({ "draining": !off })),
        AdminCommand::Address => post("/v1/node/address", Value::Null),
        AdminCommand::OnchainSend { address, amount, fee_rate } => post(
            "/v1/node/send",
            json!({ "address": address, "amount_sat": whole_sat(amount)?, "fee_rate_sat_per_kwu": fee_rate }),
        ),
        AdminCommand::Peer { peer } => {
            let (node_id, address) = read_peer(&peer)?;
            let address = address.context("give the peer as node_id@address:port")?;
            post("/v1/ldk/peers", json!({ "node_id": node_id, "address": address }))
        }
        AdminCommand::OpenChannel { peer, amount, push, private } => {
            let (node_id, address) = read_peer(&peer)?;
            let push_msat = push.unwrap_or(Amount::ZERO).msat();
            post(
                "/v1/ldk/channels",
                json!({ "node_id": node_id, "address": address, "amount_sat": whole_sat(amount)?, "push_msat": push_msat, "announced": !private }),
            )
        }
        AdminCommand::Channels => get("/v1/ldk/channels"),
        AdminCommand::CloseChannel { channel_id, force } => {
            (Method::DELETE, format!("/v1/ldk/channels/{channel_id}?force={force}"), Value::Null)
        }
    })
}

fn whole_sat(amount: Amount) -> anyhow::Result<u64> {
    amount.sat_exact().context("the amount must be a whole number of sat")
}

fn read_peer(text: &str) -> anyhow::Result<(PublicKey, Option<SocketAddr>)> {
    let (key, address) = match text.split_once('@') {
        Some((key, address)) => (key, Some(address.parse().context("an address is host:port, by number")?)),
        None => (text, None),
    };
    Ok((key.parse().context("a node id is 66 hex digits")?, address))
}

/// Asks, and prints the answer.
pub(super) async fn ask(data_dir: &Path, url: Option<String>, command: AdminCommand) -> anyhow::Result<()> {
    let url = match url {
        Some(url) => url,
        None => {
            let file = data_dir.join(ADMIN_URL_FILE);
            std::fs::read_to_string(&file)
                .with_context(|| format!("no gateway has run in {}: give --data-dir", data_dir.display()))?
        }
    };
    let file = data_dir.join(TOKEN_FILE);
    let token = std::fs::read_to_string(&file).with_context(|| file.display().to_string())?;
    let token = Zeroizing::new(token.trim().to_owned());
    let (method, path, body) = call(command)?;
    let url: Url = format!("{}{path}", url.trim().trim_end_matches('/')).parse()?;
    let client = Client::builder().timeout(ANSWER).no_proxy().build()?;
    let mut request = client.request(method.clone(), url.clone()).bearer_auth(token.as_str());
    if method == Method::POST {
        request = request.json(&body);
    }
    let response = request
        .send()
        .await
        .with_context(|| format!("the gateway at {url} does not answer: is it running?"))?;
    let good = response.status().is_success();
    let text = response.text().await?;
    if good {
        let value: Value = serde_json::from_str(&text).context("the answer can't be read")?;
        println!("{}", serde_json::to_string_pretty(&value)?);
        return Ok(());
    }
    match serde_json::from_str::<ProblemDocument>(&text) {
        Ok(problem) => bail!("{} ({})", problem.detail, problem.code),
        Err(_) => bail!("the gateway answered {text}"),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        super::super::Cli::command().debug_assert();
    }

    #[test]
    fn peers_and_amounts_are_read() {
        let key = "0279be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798".to_owned();
        assert_eq!(read_peer(&key).unwrap().1, None);
        let (_, address) = read_peer(&format!("{key}@127.0.0.1:9735")).unwrap();
        assert_eq!(address, Some("127.0.0.1:9735".parse().unwrap()));
        assert!(read_peer("me@here").is_err());
        assert!(whole_sat(Amount::from_msat(1500)).is_err());
    }
}
