//! The options, and what is made of them.
//!
//! All are checked before `init` is answered: a bad one disables the plugin with one line, and lightningd runs on.
//! None is dynamic, and none is a secret: both end badly with lightningd (`setconfig`, `listconfigs`).

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use bitcoin::Network;
use cln_plugin::messages::Configuration;
use cln_plugin::options::{DefaultBooleanConfigOption, DefaultStringConfigOption, StringConfigOption};
use cln_plugin::{Builder, ConfiguredPlugin};
use tokio::io::{AsyncRead, AsyncWrite};

const GUARDIAN: DefaultBooleanConfigOption<'static> = DefaultBooleanConfigOption::new_bool_with_default(
    "fed-guardian",
    true,
    "Be a guardian of a federation (true or false).",
);
const GATEWAY: DefaultBooleanConfigOption<'static> = DefaultBooleanConfigOption::new_bool_with_default(
    "fedgw-enable",
    false,
    "Be a Lightning gateway of federations (true or false).",
);
const DATA_DIR: StringConfigOption<'static> = StringConfigOption::new_str_no_default(
    "fed-data-dir",
    "Folder of the federation's data. Default: federation, in lightningd's folder of the network.",
);
const STORE: StringConfigOption<'static> = StringConfigOption::new_str_no_default(
    "fed-store",
    "Database of the guardian: sqlite:PATH or postgres://… Default: a SQLite file in fed-data-dir.",
);
const API: DefaultStringConfigOption<'static> = DefaultStringConfigOption::new_str_with_default(
    "fed-api",
    "127.0.0.1:8176",
    "IP address and port that the guardian's REST API listens on.",
);
const API_URL: StringConfigOption<'static> = StringConfigOption::new_str_no_default(
    "fed-api-url",
    "URL by which users reach the guardian's REST API. Default: http:// and fed-api.",
);
const LINK: DefaultStringConfigOption<'static> = DefaultStringConfigOption::new_str_with_default(
    "fed-link",
    "0.0.0.0:8177",
    "IP address and port that other guardians' links are taken on.",
);
const LINK_ADDRESS: StringConfigOption<'static> = StringConfigOption::new_str_no_default(
    "fed-link-address",
    "HOST:PORT by which other guardians reach this one. Needed for a federation of more than one machine.",
);
const GATEWAY_API: DefaultStringConfigOption<'static> = DefaultStringConfigOption::new_str_with_default(
    "fedgw-api",
    "127.0.0.1:8178",
    "IP address and port that the gateway's REST API listens on.",
);
const GATEWAY_API_URL: StringConfigOption<'static> = StringConfigOption::new_str_no_default(
    "fedgw-api-url",
    "URL by which users reach the gateway's REST API. Default: http:// and fedgw-api.",
);

/// Checked options.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// The chain that lightningd is on.
    pub network: Network,
    /// lightningd's RPC socket.
    pub rpc_socket: PathBuf,
    /// Where everything of ours is.
    pub data_dir: PathBuf,
    /// The guardian, if this node is to be one.
    pub guardian: Option<GuardianOptions>,
    /// The gateway, if this node is to be one.
    pub gateway: Option<GatewayOptions>,
}

/// The guardian's options.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GuardianOptions {
    /// The database; `None` for a SQLite file in the data folder.
    pub store_url: Option<String>,
    /// Where the REST API listens.
    pub api_bind: SocketAddr,
    /// How users reach it.
    pub api_url: String,
    /// Where other guardians' links are taken.
    pub link_bind: SocketAddr,
    /// How other guardians reach this one, `HOST:PORT`.
    pub link_address: String,
}

/// The gateway's options.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GatewayOptions {
    /// Where the REST API listens.
    pub api_bind: SocketAddr,
    /// How users reach it.
    pub api_url: String,
}

/// Why the plugin disables itself.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{option}: {reason}")]
pub struct OptionError {
    option: String,
    reason: String,
}

fn bad(option: &str, reason: impl Into<String>) -> OptionError {
    OptionError { option: option.to_owned(), reason: reason.into() }
}

/// Names the options to lightningd.
pub fn register<S, I, O>(builder: Builder<S, I, O>) -> Builder<S, I, O>
where
    S: Clone + Sync + Send + 'static,
    I: AsyncRead + Send + Unpin + 'static,
    O: Send + AsyncWrite + Unpin + 'static,
{
    builder
        .option(GUARDIAN)
        .option(GATEWAY)
        .option(DATA_DIR)
        .option(STORE)
        .option(API)
        .option(API_URL)
        .option(LINK)
        .option(LINK_ADDRESS)
        .option(GATEWAY_API)
        .option(GATEWAY_API_URL)
}

/// The options as lightningd hands them over.
#[derive(Debug, Clone, Default)]
struct Raw {
    guardian: bool,
    gateway: bool,
    data_dir: Option<String>,
    store: Option<String>,
    api: String,
    api_url: Option<String>,
    link: String,
    link_address: Option<String>,
    gateway_api: String,
    gateway_api_url: Option<String>,
}

/// Reads and checks the options.
pub fn read<S, I, O>(plugin: &ConfiguredPlugin<S, I, O>) -> Result<Options, OptionError>
where
    S: Clone + Sync + Send + 'static,
    I: AsyncRead + Send + Unpin + 'static,
    O: Send + AsyncWrite + Unpin + 'static,
{
    let failed = |error: anyhow::Error| bad("options", error.to_string());
    let raw = Raw {
        guardian: plugin.option(&GUARDIAN).map_err(failed)?,
        gateway: plugin.option(&GATEWAY).map_err(failed)?,
        data_dir: plugin.option(&DATA_DIR).map_err(failed)?,
        store: plugin.option(&STORE).map_err(failed)?,
        api: plugin.option(&API).map_err(failed)?,
        api_url: plugin.option(&API_URL).map_err(failed)?,
        link: plugin.option(&LINK).map_err(failed)?,
        link_address: plugin.option(&LINK_ADDRESS).map_err(failed)?,
        gateway_api: plugin.option(&GATEWAY_API).map_err(failed)?,
        gateway_api_url: plugin.option(&GATEWAY_API_URL).map_err(failed)?,
    };
    check(raw, &plugin.configuration())
}

fn check(raw: Raw, configuration: &Configuration) -> Result<Options, OptionError> {
    let network = match configuration.network.as_str() {
        "bitcoin" => Network::Bitcoin,
        "testnet" => Network::Testnet,
        "testnet4" => Network::Testnet4,
        "signet" => Network::Signet,
        "regtest" => Network::Regtest,
        other => return Err(bad("network", format!("{other} is not supported"))),
    };
    let folder = Path::new(&configuration.lightning_dir);
    let data_dir = raw.data_dir.map_or_else(|| folder.join("federation"), |path| folder.join(path));
    let guardian = if raw.guardian {
        Some(guardian(raw.store, &raw.api, raw.api_url, &raw.link, raw.link_address)?)
    } else {
        None
    };
    let gateway = if raw.gateway {
        let api_bind = address(GATEWAY_API.name(), &raw.gateway_api)?;
        Some(GatewayOptions {
            api_bind,
            api_url: url(GATEWAY_API_URL.name(), raw.gateway_api_url, api_bind)?,
        })
    } else {
        None
    };
    Ok(Options { network, rpc_socket: folder.join(&configuration.rpc_file), data_dir, guardian, gateway })
}

fn guardian(
    store_url: Option<String>,
    api: &str,
    api_url: Option<String>,
    link: &str,
    link_address: Option<String>,
) -> Result<GuardianOptions, OptionError> {
    if store_url
        .as_deref()
        .is_some_and(|url| !["sqlite:", "postgres:", "postgresql:"].iter().any(|kind| url.starts_with(kind)))
    {
        return Err(bad(STORE.name(), "give sqlite:PATH or postgres://…"));
    }
    let api_bind = address(API.name(), api)?;
    let link_bind = address(LINK.name(), link)?;
    let link_address = match link_address {
        Some(text) if is_host_port(&text) => text,
        Some(text) => return Err(bad(LINK_ADDRESS.name(), format!("'{text}' is not HOST:PORT"))),
        None => reachable(link_bind).to_string(),
    };
    Ok(GuardianOptions {
        store_url,
        api_bind,
        api_url: url(API_URL.name(), api_url, api_bind)?,
        link_bind,
        link_address,
    })
}

fn address(option: &str, text: &str) -> Result<SocketAddr, OptionError> {
    text.parse().map_err(|_| {
        bad(option, format!("'{text}' is not an IP address with a port, such as 127.0.0.1:8176"))
    })
}

fn url(option: &str, given: Option<String>, bind: SocketAddr) -> Result<String, OptionError> {
    let Some(text) = given else { return Ok(format!("http://{}", reachable(bind))) };
    let host = text.strip_prefix("http://").or_else(|| text.strip_prefix("https://"));
    if host.is_none_or(|host| host.is_empty() || host.starts_with('/') || host.contains(char::is_whitespace))
    {
        return Err(bad(option, format!("'{text}' is not a URL that begins with http:// or https://")));
    }
    Ok(text.trim_end_matches('/').to_owned())
}

/// What listens on every interface is reached on this machine by the loopback address.
fn reachable(bind: SocketAddr) -> SocketAddr {
    match bind.ip().is_unspecified() {
        true => SocketAddr::from(([127, 0, 0, 1], bind.port())),
        false => bind,
    }
}

fn is_host_port(text: &str) -> bool {
    let Some((host, port)) = text.rsplit_once(':') else { return false };
    !host.is_empty() && !host.contains(char::is_whitespace) && port.parse::<u16>().is_ok_and(|port| port > 0)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn configuration(network: &str) -> Configuration {
        serde_json::from_value(json!({
            "lightning-dir": "/l/regtest", "rpc-file": "lightning-rpc", "startup": true, "network": network,
            "feature_set": {},
        }))
        .unwrap()
    }

    fn defaults() -> Raw {
        Raw {
            guardian: true,
            api: "127.0.0.1:8176".into(),
            link: "0.0.0.0:8177".into(),
            gateway_api: "127.0.0.1:8178".into(),
            ..Raw::default()
        }
    }

    #[test]
    fn default_options_are_good() {
        let options = check(defaults(), &configuration("regtest")).unwrap();
        assert_eq!(options.data_dir, Path::new("/l/regtest/federation"));
        assert_eq!(options.rpc_socket, Path::new("/l/regtest/lightning-rpc"));
        let guardian = options.guardian.unwrap();
        assert_eq!(guardian.api_url, "http://127.0.0.1:8176");
        assert_eq!(guardian.link_address, "127.0.0.1:8177");
        assert_eq!(options.gateway, None);
    }

    #[test]
    fn each_bad_option_is_named() {
        let reason = |raw: Raw| check(raw, &configuration("regtest")).unwrap_err().to_string();
        assert!(reason(Raw { api: "8176".into(), ..defaults() }).starts_with("fed-api: "));
        assert!(reason(Raw { link: "host:1".into(), ..defaults() }).starts_with("fed-link: "));
        assert!(reason(Raw { store: Some("mysql:x".into()), ..defaults() }).starts_with("fed-store: "));
        assert!(reason(Raw { api_url: Some("ftp://x".into()), ..defaults() }).starts_with("fed-api-url: "));
        assert!(
            reason(Raw { link_address: Some("x".into()), ..defaults() }).starts_with("fed-link-address: ")
        );
        let gateway = Raw { gateway: true, gateway_api: "x".into(), ..defaults() };
        assert!(reason(gateway).starts_with("fedgw-api: "));
        let error = check(defaults(), &configuration("liquid")).unwrap_err();
        assert!(error.to_string().contains("liquid"));
        // What is switched off is not looked at.
        assert!(check(Raw { gateway_api: "x".into(), ..defaults() }, &configuration("bitcoin")).is_ok());
    }
}
