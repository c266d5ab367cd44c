//! The options of `gatewayd run`.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use bitcoin::Network;
use clap::Args;
use federation_core::Amount;
use zeroize::Zeroizing;

use crate::ldk::{BitcoindAuth, LdkConfig};
use crate::{Fees, GatewayConfig, Limits};

/// How to run a gateway.
#[derive(Debug, Args)]
pub struct RunOptions {
    /// The Bitcoin network.
    #[arg(long, env = "GATEWAYD_NETWORK", default_value = "bitcoin")]
    pub network: Network,
    /// The URL of Bitcoin Core's JSON-RPC.
    #[arg(long, env = "GATEWAYD_BITCOIND_URL")]
    pub bitcoind_url: String,
    /// Bitcoin Core's cookie file.
    #[arg(long, env = "GATEWAYD_BITCOIND_COOKIE")]
    pub bitcoind_cookie: Option<PathBuf>,
    /// A file with user:password for Bitcoin Core.
    #[arg(long, conflicts_with = "bitcoind_cookie")]
    pub bitcoind_password_file: Option<PathBuf>,
    /// Where the API for users listens.
    #[arg(long, env = "GATEWAYD_API_BIND", default_value = "127.0.0.1:8178")]
    pub api_bind: SocketAddr,
    /// How users reach it, such as https://gateway.example.org; by default http:// and where it listens.
    #[arg(long, env = "GATEWAYD_API_URL")]
    pub api_url: Option<String>,
    /// Where the admin API listens: a loopback address.
    #[arg(long, env = "GATEWAYD_ADMIN_BIND", default_value = "127.0.0.1:8179")]
    pub admin_bind: SocketAddr,
    /// Where Lightning peers connect to.
    #[arg(long, env = "GATEWAYD_LDK_LISTEN", default_value = "0.0.0.0:9735")]
    pub ldk_listen: SocketAddr,
    /// An address to announce to the Lightning network; may be given several times.
    #[arg(long)]
    pub ldk_announce: Vec<SocketAddr>,
    /// The node's name, at most 32 bytes.
    #[arg(long, env = "GATEWAYD_ALIAS", default_value = "")]
    pub alias: String,
    /// The block height from which a restored seed's coins are looked for.
    #[arg(long)]
    pub wallet_birthday: Option<u32>,
    /// Fee for each payment that a user makes, in msat, routing included.
    #[arg(long, default_value_t = Fees::default().send_base.msat())]
    pub send_base_msat: u64,
    /// Fee for such payments, in millionths of the amount.
    #[arg(long, default_value_t = Fees::default().send_ppm)]
    pub send_ppm: u64,
    /// Fee for each payment that a user gets, in msat.
    #[arg(long, default_value_t = Fees::default().receive_base.msat())]
    pub receive_base_msat: u64,
    /// Fee for such payments, in millionths of the amount.
    #[arg(long, default_value_t = Fees::default().receive_ppm)]
    pub receive_ppm: u64,
    /// The smallest payment, in msat.
    #[arg(long, default_value_t = Limits::default().min.msat())]
    pub min_msat: u64,
    /// The largest payment, in msat.
    #[arg(long, default_value_t = Limits::default().max.msat())]
    pub max_msat: u64,
    /// The most that may be funded to users and not yet be settled, in msat: what a fault of the node can cost.
    #[arg(long, default_value_t = Limits::default().max_exposure.msat())]
    pub max_exposure_msat: u64,
}

impl RunOptions {
    /// For the node.
    pub(super) fn ldk(&self, data_dir: &Path) -> anyhow::Result<LdkConfig> {
        Ok(LdkConfig {
            data_dir: data_dir.join("ldk"),
            network: self.network,
            bitcoind_url: self.bitcoind_url.clone(),
            bitcoind_auth: self.auth()?,
            listen: self.ldk_listen,
            announce: self.ldk_announce.clone(),
            alias: self.alias.clone(),
            seed_file: data_dir.join("ldk-seed"),
            wallet_birthday: self.wallet_birthday,
        })
    }

    /// For the gateway.
    pub(super) fn gateway(&self, data_dir: &Path) -> GatewayConfig {
        GatewayConfig {
            data_dir: data_dir.to_path_buf(),
            api_bind: self.api_bind,
            api_url: self.api_url.clone(),
            fees: Fees {
                send_base: Amount::from_msat(self.send_base_msat),
                send_ppm: self.send_ppm,
                receive_base: Amount::from_msat(self.receive_base_msat),
                receive_ppm: self.receive_ppm,
            },
            limits: Limits {
                min: Amount::from_msat(self.min_msat),
                max: Amount::from_msat(self.max_msat),
                max_exposure: Amount::from_msat(self.max_exposure_msat),
                ..Limits::default()
            },
            words: None,
        }
    }

    fn auth(&self) -> anyhow::Result<BitcoindAuth> {
        match (&self.bitcoind_cookie, &self.bitcoind_password_file) {
            (Some(cookie), _) => Ok(BitcoindAuth::CookieFile(cookie.clone())),
            (None, Some(file)) => {
                let text = std::fs::read_to_string(file).with_context(|| file.display().to_string())?;
                let text = Zeroizing::new(text);
                let (user, password) =
                    text.trim_end().split_once(':').context("the password file holds user:password")?;
                Ok(BitcoindAuth::Password { user: user.to_owned(), password: password.to_owned() })
            }
            (None, None) => bail!("give --bitcoind-cookie or --bitcoind-password-file"),
        }
    }
}
