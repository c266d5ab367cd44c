//! What an embedded node needs to be told, and LDK's own settings that follow from it.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use bitcoin::Network;
use lightning::util::config::UserConfig;

/// How to start an [`LdkNode`](super::LdkNode).
#[derive(Debug, Clone)]
pub struct LdkConfig {
    /// Holds everything the node stores. One node a directory; back it up as a whole.
    pub data_dir: PathBuf,
    /// The chain.
    pub network: Network,
    /// Bitcoin Core's JSON-RPC, such as `http://127.0.0.1:8332`.
    pub bitcoind_url: String,
    /// How to log in there.
    pub bitcoind_auth: BitcoindAuth,
    /// Where peers connect to; port 0 takes a free one.
    pub listen: SocketAddr,
    /// What is announced as this node's addresses; empty announces none.
    pub announce: Vec<SocketAddr>,
    /// The node's name in gossip, at most 32 bytes of UTF-8.
    pub alias: String,
    /// Where the seed is: a BIP 39 mnemonic or 64 hex digits. Created with a fresh mnemonic,
    /// readable by its owner only, if it does not exist.
    pub seed_file: PathBuf,
    /// Where a new data directory starts to look for coins of an old seed; `None`: at the tip.
    pub wallet_birthday: Option<u32>,
}

/// Credentials for Bitcoin Core's JSON-RPC.
#[derive(Clone)]
pub enum BitcoindAuth {
    /// `rpcuser` or the name in `rpcauth`, and its password.
    Password {
        /// User name.
        user: String,
        /// Password.
        password: String,
    },
    /// The `.cookie` file, read again when Bitcoin Core was restarted.
    CookieFile(PathBuf),
}

impl std::fmt::Debug for BitcoindAuth {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            BitcoindAuth::Password { user, .. } => write!(f, "Password({user})"),
            BitcoindAuth::CookieFile(path) => write!(f, "CookieFile({})", path.display()),
        }
    }
}

impl LdkConfig {
    /// How often Bitcoin Core is asked for its tip.
    pub(super) fn poll_interval(&self) -> Duration {
        match self.network {
            Network::Regtest => Duration::from_millis(300),
            _ => Duration::from_secs(5),
        }
    }

    /// How often lost peers are connected again.
    pub(super) fn reconnect_interval(&self) -> Duration {
        match self.network {
            Network::Regtest => Duration::from_millis(500),
            _ => Duration::from_secs(10),
        }
    }

    /// What each channel keeps in the on-chain wallet for fee bumps of anchor outputs, in sat.
    pub(super) fn anchor_reserve_sat(&self) -> u64 {
        match self.network {
            Network::Regtest => 0,
            _ => 25_000,
        }
    }

    /// LDK's settings.
    pub(super) fn user_config(&self) -> UserConfig {
        let mut config = UserConfig {
            // Each request is looked at: anchors need coins to bump fees with.
            manually_accept_inbound_channels: true,
            ..UserConfig::default()
        };
        let handshake = &mut config.channel_handshake_config;
        handshake.negotiate_anchors_zero_fee_htlc_tx = true;
        // A gateway's channel may be spent in one payment: 10 % (LDK's default) would refuse it.
        handshake.max_inbound_htlc_value_in_flight_percent_of_channel = 100;
        if self.network == Network::Regtest {
            handshake.our_max_accepted_htlcs = 483;
            handshake.minimum_depth = 1;
        }
        // Without it, announced channels from CLN are refused.
        config.channel_handshake_limits.force_announced_channel_preference = false;
        config
    }
}
